/* lookup.c — see lookup.h. */
#include "autotune/lookup.h"
#include "autotune/store_internal.h"
#include "autotune/tune.h"
#include "ir/text.h"
#include "lower/schedule.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry {
  const char *hash, *schedule;
} entry;

struct at_lookup {
  at_store *store;
  const cg_target *t;
  const char *fingerprint, *policy, *codegen, *plan_name;
  bool planned;
  int threads;             /* that will run the code */
  lw_layout_choice layout; /* of the plan */
  ir_text cuts;            /* of the plan */
  int n;
  entry *plan; /* sorted by hash */
  at_lookup_tally tally;
};

static const char *hash_text(tn_ctx *ctx, const char *canonical) {
  char uid[AT_UID + 1];
  at_hasher h;
  at_hash_start(&h);
  at_hash_text(&h, canonical);
  at_hash_end(&h, uid);
  return ir_strdup(ctx, uid);
}

const char *at_kernel_hash(tn_ctx *ctx, const ir_kernel *k) { return hash_text(ctx, ir_kernel_canonical(ctx, k)); }

/* ---- layouts ---- */

static const char *const layout_names[] = {[LW_LAYOUT_AUTO] = NULL, [LW_LAYOUT_NCHW] = "NCHW", [LW_LAYOUT_NHWC] = "NHWC", [LW_LAYOUT_NCHWC] = "NCHWc"};

const char *at_layout_name(lw_layout_choice layout) { return layout_names[layout]; }

static lw_layout_choice layout_of(const char *name) {
  for (int i = 1; i < IR_COUNT(layout_names); i++)
    if (strcmp(name, layout_names[i]) == 0) return (lw_layout_choice)i;
  return LW_LAYOUT_AUTO;
}

static void put_shape(ir_text *t, const ir_value *v) {
  ir_put(t, " %s%s[", v->kind == IR_VALUE_NODE || v->kind == IR_VALUE_INPUT ? "" : "const ", ir_dtype_name(v->dtype));
  for (int i = 0; i < v->rank; i++) ir_put(t, i ? ", %s" : "%s", ix_print(t->ctx, v->dims[i]));
  ir_put(t, "]");
}

/* What a graph's times depend on: ops, shapes of what comes from outside, whole attributes; not names and
 * not the weights, which are too large to look at in every compile. */
static const char *graph_shape(tn_ctx *ctx, const ir_graph *g) {
  ir_text t = {.ctx = ctx};
  for (int i = 0; i < g->nnodes; i++) {
    const ir_node *n = g->nodes[i];
    ir_put(&t, "%s:%s", n->op->domain, n->op->name);
    for (int k = 0; k < n->nin; k++)
      if (n->in[k] && n->in[k]->kind != IR_VALUE_NODE) put_shape(&t, n->in[k]);
      else ir_put(&t, n->in[k] ? " _" : " -");
    for (int k = 0; k < n->nattrs; k++) {
      ir_put(&t, " %s=%lld", n->attrs[k].name, (long long)n->attrs[k].i);
      for (int j = 0; j < n->attrs[k].n && n->attrs[k].ints; j++) ir_put(&t, ",%lld", (long long)n->attrs[k].ints[j]);
    }
    ir_put(&t, "\n");
  }
  return ir_text_str(&t);
}

const char *at_graph_text(tn_ctx *ctx, const ir_graph *g) { return ir_format(ctx, "graph %s\n", hash_text(ctx, graph_shape(ctx, g))); }

static const char WHOLE[] = "whole runs", TUNED_OR_NOT[] = "whole runs, tuned or not", CUT_OR_NOT[] = "whole runs, groups cut or not";
static const char *whole_policy(tn_ctx *ctx, const char *of_one, int threads) { return threads > 1 ? ir_format(ctx, "%s, %d threads", of_one, threads) : of_one; }

/* What is known of the key, else of the same with one thread. */
static bool best(const at_lookup *l, const at_key *key, const char *of_one, at_winner *w) {
  at_key one = *key;
  one.policy = of_one;
  return at_store_best(l->store, key, w) || (strcmp(key->policy, of_one) && at_store_best(l->store, &one, w));
}

at_key at_layout_key(tn_ctx *ctx, const ir_graph *g, const cg_target *t, int threads) {
  return (at_key){at_graph_text(ctx, g), cg_target_fingerprint(ctx, t), whole_policy(ctx, WHOLE, threads), at_codegen(ctx)};
}

at_key at_whole_key(tn_ctx *ctx, const ir_graph *g, const cg_target *t, int threads) {
  at_key key = at_layout_key(ctx, g, t, threads);
  key.policy = whole_policy(ctx, TUNED_OR_NOT, threads);
  return key;
}

bool at_lookup_untuned(const at_lookup *l, const at_key *whole) {
  at_winner w;
  return l && !l->planned && best(l, whole, TUNED_OR_NOT, &w) && !w.stale && strncmp(w.schedule, "untuned", 7) == 0;
}

lw_layout_choice at_layout_won(at_store *store, const at_key *key) {
  at_winner w;
  char name[16];
  if (!at_store_best(store, key, &w) || w.stale || sscanf(w.schedule, "layout %15s", name) != 1) return LW_LAYOUT_AUTO;
  return layout_of(name);
}

lw_layout_choice at_lookup_layout(const at_lookup *l, const at_key *key) {
  at_winner w;
  if (!l) return LW_LAYOUT_AUTO;
  if (l->planned) return l->layout;
  at_key one = *key;
  one.policy = WHOLE;
  return at_layout_won(l->store, at_store_best(l->store, key, &w) ? key : &one);
}

at_key at_cut_key(tn_ctx *ctx, const ir_graph *g, const cg_target *t, int threads) {
  at_key key = at_layout_key(ctx, g, t, threads);
  key.policy = whole_policy(ctx, CUT_OR_NOT, threads);
  return key;
}

const char *at_lookup_cuts(tn_ctx *ctx, const at_lookup *l, const at_key *key) {
  at_winner w;
  if (!l) return NULL;
  if (l->planned) return l->cuts.s;
  if (!best(l, key, CUT_OR_NOT, &w) || w.stale || strncmp(w.schedule, "cut ", 4)) return NULL;
  return ir_strndup(ctx, w.schedule + 4, strcspn(w.schedule + 4, "\n"));
}

bool at_listed_cut(void *cuts, tn_ctx *ctx, const lw_group *group) {
  (void)ctx;
  return cuts && strstr(cuts, group->hash);
}

/* ---- plans ---- */

static int by_hash(const void *a, const void *b) { return strcmp(((const entry *)a)->hash, ((const entry *)b)->hash); }

static entry *find(const at_lookup *l, const char *hash) {
  entry key = {hash, NULL};
  return l->n ? bsearch(&key, l->plan, (size_t)l->n, sizeof key, by_hash) : NULL;
}

static bool is_hash(const char *s) { return strlen(s) == AT_UID && strspn(s, "0123456789abcdef") == AT_UID; }

/* The word at p, without quotes if it has some; *p behind it. */
static const char *word(tn_ctx *ctx, const char **p, const char *end) {
  while (*p < end && (**p == ' ' || **p == '\t')) ++*p;
  const char *from = *p;
  while (*p < end && **p != ' ' && **p != '\t') ++*p;
  return ir_strndup(ctx, from, (size_t)(*p - from));
}

static void read_plan(tn_ctx *ctx, at_lookup *l, const char *text) {
  int line = 1;
  ir_text steps = {.ctx = ctx};
  const char *hash = NULL;
  bool head = false;
  for (const char *p = text;; line++) {
    const char *end = p + strcspn(p, "\n"), *at = p;
    const char *first = word(ctx, &at, end);
    bool kernel = strcmp(first, "kernel") == 0, last = !*p;
    if ((kernel || last) && hash) {
      entry e = {hash, lw_schedule_canonical(ctx, ir_text_str(&steps))};
      IR_PUSH(ctx, l->plan, l->n, e);
      steps = (ir_text){.ctx = ctx};
      hash = NULL;
    }
    if (last) break;
    if (strncmp(p, "# tenon plan ", 13) == 0) {
      if (atoi(p + 13) != 1) ir_fail(ctx, TN_EINPUT, "%s:%d: a plan of another version", l->plan_name, line);
      head = true;
    } else if (kernel) {
      hash = word(ctx, &at, end);
      if (!is_hash(hash)) ir_fail(ctx, TN_EINPUT, "%s:%d: expected the 32 hexadecimal digits of a kernel, found '%.40s'", l->plan_name, line, hash);
    } else if (strcmp(first, "target") == 0 && !hash) {
      while (at < end && *at == ' ') at++;
      const char *target = ir_strndup(ctx, at, (size_t)(end - at));
      size_t n = strlen(target);
      if (n > 1 && target[0] == '"' && target[n - 1] == '"') target = ir_strndup(ctx, target + 1, n - 2);
      if (strcmp(target, l->fingerprint)) ir_log(ctx, "%s: the plan was made for another target (%s)", l->plan_name, target);
    } else if (strcmp(first, "layout") == 0 && !hash) {
      const char *name = word(ctx, &at, end);
      l->layout = layout_of(name);
      if (l->layout == LW_LAYOUT_AUTO) ir_fail(ctx, TN_EINPUT, "%s:%d: expected NCHW, NHWC or NCHWc, found '%.40s'", l->plan_name, line, name);
    } else if (strcmp(first, "cut") == 0 && !hash) {
      const char *group = word(ctx, &at, end);
      if (strlen(group) != 16 || strspn(group, "0123456789abcdef") != 16) ir_fail(ctx, TN_EINPUT, "%s:%d: expected the 16 hexadecimal digits of a group, found '%.40s'", l->plan_name, line, group);
      ir_put(&l->cuts, "%s%s", l->cuts.n ? " " : "", group);
    } else if (hash) ir_put(&steps, "%.*s\n", (int)(end - p), p);
    else if (*first && *first != '#') ir_fail(ctx, TN_EINPUT, "%s:%d: expected 'kernel', 'target', 'layout' or 'cut', found '%.40s'", l->plan_name, line, first);
    p = *end ? end + 1 : end;
  }
  if (!head) ir_fail(ctx, TN_EINPUT, "%s: no plan: the line '# tenon plan 1' is missing", l->plan_name);
  if (l->n) qsort(l->plan, (size_t)l->n, sizeof *l->plan, by_hash);
  for (int i = 1; i < l->n; i++)
    if (strcmp(l->plan[i].hash, l->plan[i - 1].hash) == 0) ir_fail(ctx, TN_EINPUT, "%s: kernel %s stands twice", l->plan_name, l->plan[i].hash);
}

const char *at_plan_print(tn_ctx *ctx, const ir_program *p, const cg_target *t, lw_layout_choice layout, const char *cuts) {
  ir_text out = {.ctx = ctx};
  ir_put(&out, "# tenon plan 1\n# Schedules of '%s', %d kernels.\ntarget \"%s\"\n", p->name ? p->name : "", p->nkernels, cg_target_fingerprint(ctx, t));
  if (layout != LW_LAYOUT_AUTO) ir_put(&out, "layout %s\n", at_layout_name(layout));
  for (const char *h = cuts; h && *h; h += strcspn(h, " "), h += *h == ' ') ir_put(&out, "cut %.*s\n", (int)strcspn(h, " "), h);
  entry *e = IR_NEW_ARRAY(ctx, entry, p->nkernels + 1);
  for (int i = 0; i < p->nkernels; i++) {
    const ir_program_kernel *k = &p->kernels[i];
    ir_text one = {.ctx = ctx};
    e[i].hash = at_kernel_hash(ctx, k->kernel);
    ir_put(&one, "\nkernel %s ", e[i].hash);
    ir_put_string(&one, k->kernel->name);
    ir_put(&one, "\n%s", lw_schedule_unnamed(ctx, k->kernel, k->schedule));
    e[i].schedule = ir_text_str(&one);
  }
  qsort(e, (size_t)p->nkernels, sizeof *e, by_hash);
  for (int i = 0; i < p->nkernels; i++)
    if (!i || strcmp(e[i].hash, e[i - 1].hash)) ir_put(&out, "%s", e[i].schedule);
  return ir_text_str(&out);
}

/* ---- looking up ---- */

at_lookup *at_lookup_new(tn_ctx *ctx, at_store *store, const cg_target *t, int threads, const char *plan, const char *plan_name) {
  at_lookup *l = IR_NEW(ctx, at_lookup);
  *l = (at_lookup){.store = store, .t = t, .cuts = {.ctx = ctx}, .plan_name = plan_name, .planned = plan != NULL};
  l->fingerprint = cg_target_fingerprint(ctx, t);
  l->policy = at_policy(ctx, threads);
  l->threads = threads;
  l->codegen = at_codegen(ctx);
  if (plan) read_plan(ctx, l, plan);
  return l;
}

/* A stored text is somebody else's: it may be no schedule at all, or not one for this kernel. */
typedef struct trial_use {
  const ir_kernel *k;
  const char *text, *reason;
  int threads;
  bool legal;
  double speedup; /* that its tasks let so many threads have */
} trial_use;

/* Stores that a statement makes, a vector's lanes as one; and the longest that one of n threads makes of them, when each task goes to
 * whoever has the fewest. Loops without known ends count as one turn. */
typedef struct amount {
  double all, longest;
} amount;

static amount amount_of(const ir_stmt *s, int threads) {
  amount sum = {0}, part;
  if (!s) return sum;
  if (s->kind == IR_STORE) return (amount){1, 1};
  for (int i = 0; i < s->n; i++) part = amount_of(s->items[i], threads), sum.all += part.all, sum.longest += part.longest;
  part = amount_of(s->body, threads);
  sum.all += part.all, sum.longest += part.longest;
  part = amount_of(s->other, threads);
  sum.all += part.all, sum.longest += part.longest;
  int64_t lo, hi;
  if (s->kind != IR_FOR || s->loop == IR_VECTOR || !ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi) || hi <= lo) return sum;
  int64_t turns = hi - lo, most = s->loop == IR_PARALLEL ? (turns + threads - 1) / threads : turns;
  return (amount){sum.all * (double)turns, sum.longest * (double)most};
}

static void try_it(tn_ctx *ctx, void *arg) {
  trial_use *u = arg;
  u->text = lw_schedule_named(ctx, u->k, u->text);
  const ir_kernel *k = lw_schedule_apply(ctx, u->k, u->text, &u->reason);
  if (!k) return;
  u->reason = ir_kernel_verify(ctx, k);
  u->legal = !u->reason;
  amount a = amount_of(k->body, u->threads);
  u->speedup = a.longest > 0 ? a.all / a.longest : 1;
}

static const char *legal(tn_ctx *ctx, const ir_kernel *k, const char *text, const char *from) {
  trial_use u = {.k = k, .text = text, .threads = 1};
  tn_status s = ir_protect(ctx, try_it, &u);
  if (s == TN_OK && u.legal) return u.text;
  ir_log(ctx, "kernel %s: the schedule from %s does not fit (%s); the default is taken", k->name, from, s ? ir_error(ctx) : u.reason);
  return NULL;
}

/* stands_in: nothing is known of so many threads, this is the best of one, and nobody pinned it. */
static bool best_schedule(const at_lookup *l, const char *canonical, at_winner *w, bool *stands_in) {
  at_key key = {canonical, l->fingerprint, l->policy, l->codegen};
  bool found = at_store_best(l->store, &key, w);
  *stands_in = false;
  if (found || l->threads <= 1) return found;
  key.policy = at_policy(NULL, 1);
  found = at_store_best(l->store, &key, w);
  *stands_in = found && !w->pinned;
  return found;
}

/* One thread is served by schedules with no tasks, or few and uneven ones, as well; several are not where the default has better:
 * what a winner has gained on one thread is a few per cent most of the time. */
static bool wastes_threads(const at_lookup *l, tn_ctx *ctx, const ir_kernel *k, const char *text) {
  const double LOSS = 0.97;
  trial_use u = {.k = k, .text = text, .threads = l->threads}, standard = {.k = k, .threads = l->threads};
  try_it(ctx, &u);
  standard.text = lw_default_schedule(ctx, k, l->t, LW_ACCURACY);
  try_it(ctx, &standard);
  return u.speedup < LOSS * standard.speedup;
}

const char *at_lookup_schedule(void *user, tn_ctx *ctx, const ir_kernel *k) {
  at_lookup *l = user;
  const char *canonical = ir_kernel_canonical(ctx, k), *text = NULL;
  if (l->planned) {
    const entry *e = find(l, hash_text(ctx, canonical));
    text = e ? legal(ctx, k, e->schedule, l->plan_name) : NULL;
    if (text) l->tally.plan++;
  } else if (l->store) {
    at_winner w;
    bool stands_in;
    if (best_schedule(l, canonical, &w, &stands_in)) text = legal(ctx, k, ir_strdup(ctx, w.schedule), "the store");
    if (text && stands_in && wastes_threads(l, ctx, k, text)) text = NULL;
    if (text) l->tally.store++, l->tally.stale += w.stale;
  }
  if (!text) l->tally.missed++;
  return text;
}

bool at_lookup_knows(const at_lookup *l, tn_ctx *ctx, const ir_kernel *k) {
  const char *canonical = ir_kernel_canonical(ctx, k);
  if (l->planned) return find(l, hash_text(ctx, canonical)) != NULL;
  at_winner w;
  bool stands_in;
  return best_schedule(l, canonical, &w, &stands_in);
}

at_lookup_tally at_lookup_tally_of(const at_lookup *l) { return l->tally; }
