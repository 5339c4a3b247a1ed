/* store_query.c — what is asked: the winner of a task, what was tried, iteration. */
#include "autotune/store_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the winner ----
 * All layers are asked under one read transaction each, so that a look-up takes one
 * lock per file, and nothing throws before these are given back. */

typedef struct lookup {
  at_store *s;
  const at_key *key;
  char workload[AT_UID + 1], task[AT_UID + 1];
  at_db *layer[AT_LAYERS];
  int layers;
  bool open[AT_LAYERS]; /* has a transaction */
  /* the best so far */
  at_winner w;
  char *schedule; /* sqlite3_malloc'ed */
  /* the first things that went wrong, told at the end */
  at_db *failed, *damaged;
  int rc;
} lookup;

static void went_wrong(lookup *q, at_db *db, int rc) {
  if (rc && !q->failed) {
    q->failed = db;
    q->rc = rc;
  }
}

static sqlite3_stmt *ask(lookup *q, int i, at_st which) {
  int rc;
  sqlite3_stmt *st = at_db_st(q->layer[i], which, &rc);
  went_wrong(q, q->layer[i], rc);
  if (st) {
    at_st_text(st, 1, q->task);
    if (which != AT_S_PIN) at_st_text(st, 2, at_or_empty(q->key->codegen));
  }
  return st;
}

static void answered(lookup *q, int i, sqlite3_stmt *st) { went_wrong(q, q->layer[i], sqlite3_reset(st)); }

/* Does another layer know this config to be bad? Its own was asked in the query. */
static bool barred_elsewhere(lookup *q, int self, const at_row *t) {
  for (int i = 0; i < q->layers; i++) {
    if (i == self || !q->open[i]) continue;
    int rc;
    sqlite3_stmt *st = at_db_st(q->layer[i], AT_S_BARRED, &rc);
    went_wrong(q, q->layer[i], rc);
    if (!st) continue;
    at_st_text(st, 1, q->workload);
    at_st_text(st, 2, at_or_empty(q->key->target));
    at_st_text(st, 3, t->v[AT_TRIAL_CONFIG].s);
    at_st_text(st, 4, t->v[AT_TRIAL_CODEGEN].s);
    at_st_text(st, 5, at_or_empty(q->key->codegen));
    bool bad = sqlite3_step(st) == SQLITE_ROW;
    answered(q, i, st);
    if (bad) return true;
  }
  return false;
}

static void take_trial(lookup *q, int i, const at_row *t, const char *schedule, bool stale) {
  char *copy = schedule ? sqlite3_mprintf("%s", schedule) : NULL;
  if (schedule) {
    if (!copy) {
      went_wrong(q, q->layer[i], SQLITE_NOMEM);
      return;
    }
    sqlite3_free(q->schedule);
    q->schedule = copy;
  }
  at_winner *w = &q->w;
  w->stale = stale;
  w->shared = q->layer[i]->shared;
  w->cost_ns = t->v[AT_TRIAL_COST].d;
  w->min_ns = t->v[AT_TRIAL_MIN].d;
  w->median_ns = t->v[AT_TRIAL_MEDIAN].d;
  w->mad_ns = t->v[AT_TRIAL_MAD].d;
  w->predicted_ns = t->v[AT_TRIAL_PREDICTED].d;
  w->n = (int)t->v[AT_TRIAL_N].i;
  w->time_us = t->v[AT_TRIAL_TIME].i;
  snprintf(w->codegen, sizeof w->codegen, "%s", t->v[AT_TRIAL_CODEGEN].s);
  memcpy(w->uid, t->uid, sizeof w->uid);
}

/* Ranks like the SQL: cost, then predicted (unknown first), then uid. */
static bool ranks_before(const at_row *t, const at_winner *w) {
  double a = t->v[AT_TRIAL_COST].d, b = w->cost_ns;
  if (a != b) return a < b;
  a = t->v[AT_TRIAL_PREDICTED].d;
  b = w->predicted_ns;
  if (isnan(a) != isnan(b)) return isnan(a);
  if (a != b && !isnan(a)) return a < b;
  return strcmp(t->uid, w->uid) < 0;
}

/* The first row of the layer that holds what it should and is not barred. */
static bool best_of(lookup *q, int i, bool stale, bool have) {
  if (!q->open[i]) return false;
  sqlite3_stmt *st = ask(q, i, stale ? AT_S_BEST_STALE : AT_S_BEST);
  bool found = false;
  while (st && !found && sqlite3_step(st) == SQLITE_ROW) {
    at_row t;
    char config[AT_UID + 1];
    at_row_read(&t, AT_T_TRIAL, st, 0);
    const char *schedule = at_or_empty((const char *)sqlite3_column_text(st, at_row_columns(AT_T_TRIAL)));
    at_config_uid(schedule, config);
    if (!t.sound || strcmp(config, t.v[AT_TRIAL_CONFIG].s) || !(t.v[AT_TRIAL_COST].d > 0)) {
      q->damaged = q->layer[i];
    } else if (!barred_elsewhere(q, i, &t)) {
      found = true;
      if (!have || ranks_before(&t, &q->w)) take_trial(q, i, &t, schedule, stale);
    }
  }
  if (st) answered(q, i, st);
  return found;
}

/* Figures for a pinned config, from the nearest layer that timed it. */
static void time_pinned(lookup *q, const char *config) {
  for (int i = 0; i < q->layers && !q->w.n; i++) {
    sqlite3_stmt *st = q->open[i] ? ask(q, i, AT_S_PINNED_TRIAL) : NULL;
    if (!st) continue;
    at_st_text(st, 3, config);
    while (!q->w.n && sqlite3_step(st) == SQLITE_ROW) {
      at_row t;
      at_row_read(&t, AT_T_TRIAL, st, 0);
      if (t.sound) take_trial(q, i, &t, NULL, strcmp(t.v[AT_TRIAL_CODEGEN].s, at_or_empty(q->key->codegen)) != 0);
    }
    answered(q, i, st);
  }
}

/* The nearest layer that has something to say about a pin decides. */
static bool find_pin(lookup *q) {
  for (int i = 0; i < q->layers; i++) {
    sqlite3_stmt *st = q->open[i] ? ask(q, i, AT_S_PIN) : NULL;
    if (!st) continue;
    at_row p;
    char config[AT_UID + 1] = "";
    bool known = false, active = false;
    if (sqlite3_step(st) == SQLITE_ROW) {
      at_row_read(&p, AT_T_PIN, st, 0);
      const char *schedule = at_or_empty((const char *)sqlite3_column_text(st, at_row_columns(AT_T_PIN)));
      at_config_uid(schedule, config);
      known = p.sound && !strcmp(config, p.v[AT_PIN_CONFIG].s);
      active = p.v[AT_PIN_ACTIVE].i != 0;
      if (!known) q->damaged = q->layer[i];
      else if (active && !(q->schedule = sqlite3_mprintf("%s", schedule))) went_wrong(q, q->layer[i], SQLITE_NOMEM);
      q->w.shared = q->layer[i]->shared;
    }
    answered(q, i, st);
    if (!known) continue;
    if (!active || !q->schedule) return false;
    bool shared = q->w.shared;
    time_pinned(q, config);
    q->w.pinned = true;
    q->w.shared = shared;
    return true;
  }
  return false;
}

static bool find_best(lookup *q) {
  if (find_pin(q)) return true;
  for (int stale = 0; stale < 2; stale++) {
    bool have = false;
    for (int i = 0; i < q->layers; i++) {
      if (have && q->layer[i]->shared) break; /* private rows go first */
      have |= best_of(q, i, stale, have);
    }
    if (have) return q->schedule != NULL;
  }
  return false;
}

/* A number that changes with everything that anybody writes to a layer; 0: not known. */
static uint64_t version_of(const lookup *q) {
  uint64_t v = 1;
  for (int i = 0; i < q->layers; i++) {
    int rc;
    at_db *db = q->layer[i];
    sqlite3_stmt *st = at_db_st(db, AT_S_VERSION, &rc);
    if (!st || sqlite3_step(st) != SQLITE_ROW) return 0;
    uint64_t now = (uint64_t)sqlite3_column_int64(st, 0) << 32 ^ (uint64_t)sqlite3_total_changes(db->h);
    sqlite3_reset(st);
    v = (v ^ now ^ (uint64_t)(uintptr_t)db->h) * 0x9e3779b97f4a7c15u;
  }
  return v ? v : 1;
}

/* The slot for a task, emptied when anything has changed; null: nothing is remembered. */
static at_memo *memo_of(lookup *q) {
  at_store *s = q->s;
  uint64_t version = strlen(q->key->codegen ? q->key->codegen : "") < sizeof s->memos->codegen ? version_of(q) : 0;
  if (!version) return NULL;
  if (!s->memos) s->memos = IR_NEW_ARRAY(s->ctx, at_memo, AT_MEMOS);
  if (version != s->memo_version) memset(s->memos, 0, AT_MEMOS * sizeof *s->memos);
  s->memo_version = version;
  char digits[3] = {q->task[0], q->task[1], 0};
  return &s->memos[strtol(digits, NULL, 16) % AT_MEMOS];
}

bool at_store_best(at_store *s, const at_key *key, at_winner *out) {
  const at_winner nothing = {.cost_ns = NAN, .min_ns = NAN, .median_ns = NAN, .mad_ns = NAN, .predicted_ns = NAN};
  *out = nothing;
  if (!at_store_mine(s)) return false;
  lookup q = {.s = s, .key = key, .w = nothing};
  q.layers = at_store_layers(s, q.layer);
  if (!q.layers) return false;
  at_task_uid(key, q.workload, q.task);
  at_memo *memo = memo_of(&q);
  const char *codegen = key->codegen ? key->codegen : "";
  if (memo && memo->known && !strcmp(memo->task, q.task) && !strcmp(memo->codegen, codegen)) {
    *out = memo->w;
    return memo->found;
  }
  for (int i = 0; i < q.layers; i++) {
    int rc = at_db_exec(q.layer[i], AT_S_BEGIN_READ);
    q.open[i] = !rc;
    went_wrong(&q, q.layer[i], rc);
  }
  bool found = find_best(&q);
  for (int i = 0; i < q.layers; i++)
    if (q.open[i] && !sqlite3_get_autocommit(q.layer[i]->h)) at_db_exec(q.layer[i], AT_S_COMMIT);
  if (q.schedule) ir_defer(s->ctx, sqlite3_free, q.schedule);
  if (q.failed) at_store_complain(s, q.failed, q.rc, at_code_text(q.rc));
  if (q.damaged) at_store_warn_damaged(s, q.damaged);
  if (found) {
    *out = q.w;
    out->schedule = ir_intern(s->ctx, q.schedule);
  }
  if (q.schedule) {
    ir_undefer(s->ctx, sqlite3_free, q.schedule);
    sqlite3_free(q.schedule);
  }
  if (memo && !q.failed && !q.damaged) {
    *memo = (at_memo){.known = true, .found = found, .w = *out};
    snprintf(memo->task, sizeof memo->task, "%s", q.task);
    snprintf(memo->codegen, sizeof memo->codegen, "%s", codegen);
  }
  return found;
}

/* ---- iteration ---- */

typedef struct walk {
  at_reader *reader;
  double *samples;
  int cap;
} walk;

static void walk_free(void *arg) {
  walk *w = arg;
  at_reader_free(w->reader);
  free(w->samples);
  w->reader = NULL;
  w->samples = NULL;
  w->cap = 0;
}

/* WHERE over trial t for a filter; fills args. */
static char *where_of(const at_filter *f, const char **args, int *nargs, char uid[AT_UID + 1]) {
  int n = 0;
  sqlite3_str *s = sqlite3_str_new(NULL);
  sqlite3_str_appendall(s, "1");
  if (f->ok_only) sqlite3_str_appendall(s, " AND t.status='ok'");
  if (f->codegen) {
    args[n++] = f->codegen;
    sqlite3_str_appendf(s, " AND t.codegen=?%d", n);
  }
  if (f->run) {
    args[n++] = f->run;
    sqlite3_str_appendf(s, " AND t.run=(SELECT id FROM run WHERE uid=?%d)", n);
  }
  if (f->kernel || f->klass || f->name || f->target || f->policy) {
    sqlite3_str_appendall(s, " AND t.task IN(SELECT k.id FROM task k JOIN workload w ON w.id=k.workload WHERE 1");
    const char *const columns[] = {"w.class", "w.name", "k.target", "k.policy"};
    const char *const values[] = {f->klass, f->name, f->target, f->policy};
    if (f->kernel) {
      char task[AT_UID + 1];
      at_task_uid(&(at_key){.kernel = f->kernel}, uid, task);
      args[n++] = uid;
      sqlite3_str_appendf(s, " AND w.uid=?%d", n);
    }
    for (int i = 0; i < IR_COUNT(columns); i++)
      if (values[i]) {
        args[n++] = values[i];
        sqlite3_str_appendf(s, " AND %s=?%d", columns[i], n);
      }
    sqlite3_str_appendall(s, ")");
  }
  *nargs = n;
  return sqlite3_str_finish(s);
}

static bool in_earlier_layer(at_db *const *layer, int i, const char *uid) {
  bool there = false;
  for (int k = 0; k < i && !there; k++) {
    int rc;
    sqlite3_stmt *st = at_db_st(layer[k], AT_S_HAS, &rc);
    if (!st) continue;
    at_st_text(st, 1, uid);
    there = sqlite3_step(st) == SQLITE_ROW;
    sqlite3_reset(st);
  }
  return there;
}

/* Values of the list, in a buffer that grows; a number missing makes the row unsound. */
static bool read_samples(walk *w, const at_row *t) {
  int64_t n = t->v[AT_TRIAL_N].i;
  if (n < 0 || n > (int64_t)strlen(t->v[AT_TRIAL_SAMPLES].s)) return false;
  if (n > w->cap) {
    double *more = realloc(w->samples, (size_t)n * sizeof *more);
    if (!more) return false;
    w->samples = more;
    w->cap = (int)n;
  }
  return at_list_read(t->v[AT_TRIAL_SAMPLES].s, w->samples, (int)n) == n;
}

static bool record_of(const walk *w, const at_row *t, at_record *r) {
  *r = (at_record){.uid = t->uid, .run = t->v[AT_TRIAL_RUN].s, .config = t->v[AT_TRIAL_CONFIG].s,
                   .kernel = t->text[AT_X_KERNEL], .klass = t->text[AT_X_CLASS], .name = t->text[AT_X_NAME],
                   .target = t->text[AT_X_TARGET], .policy = t->text[AT_X_POLICY],
                   .codegen = t->v[AT_TRIAL_CODEGEN].s, .schedule = t->text[AT_X_SCHEDULE],
                   .origin = t->v[AT_TRIAL_ORIGIN].s, .reason = t->v[AT_TRIAL_REASON].s,
                   .stage = (int)t->v[AT_TRIAL_STAGE].i, .n = (int)t->v[AT_TRIAL_N].i, .samples = w->samples,
                   .min_ns = t->v[AT_TRIAL_MIN].d, .median_ns = t->v[AT_TRIAL_MEDIAN].d,
                   .mad_ns = t->v[AT_TRIAL_MAD].d, .cost_ns = t->v[AT_TRIAL_COST].d,
                   .predicted_ns = t->v[AT_TRIAL_PREDICTED].d, .compile_ms = t->v[AT_TRIAL_COMPILE].d,
                   .seq = t->v[AT_TRIAL_SEQ].i, .time_us = t->v[AT_TRIAL_TIME].i};
  return at_status_parse(t->v[AT_TRIAL_STATUS].s, &r->status);
}

int64_t at_store_each_trial(at_store *s, const at_filter *f, bool (*fn)(void *user, const at_record *r), void *user) {
  if (!at_store_mine(s)) return 0;
  const at_filter all = {0};
  const char *args[8];
  char kernel[AT_UID + 1], workload[AT_UID + 1], task[AT_UID + 1];
  int nargs;
  char *where = where_of(f ? f : &all, args, &nargs, kernel);
  if (!where) ir_fail(s->ctx, TN_ERESOURCE, "out of memory");
  ir_defer(s->ctx, sqlite3_free, where);
  walk *w = IR_NEW(s->ctx, walk); /* not on the stack: a throw releases it after this frame is gone */
  ir_defer(s->ctx, walk_free, w);
  at_db *layer[AT_LAYERS];
  int layers = at_store_layers(s, layer);
  int64_t calls = 0;
  bool more = true;
  for (int i = 0; i < layers && more; i++) {
    int64_t damaged = 0;
    at_reader_free(w->reader);
    w->reader = at_reader_new(layer[i], AT_T_TRIAL, AT_BY_UID, where, args, nargs, true);
    if (!w->reader) ir_fail(s->ctx, TN_ERESOURCE, "out of memory");
    for (const at_row *t; more && (t = at_reader_next(w->reader));) {
      at_record r;
      if (!t->sound || !read_samples(w, t) || !record_of(w, t, &r)) {
        damaged++;
        continue;
      }
      if (in_earlier_layer(layer, i, t->uid)) continue;
      at_task_uid(&(at_key){.kernel = r.kernel}, workload, task);
      r.workload = workload;
      r.shared = layer[i]->shared;
      calls++;
      more = fn(user, &r);
    }
    int rc = at_reader_error(w->reader);
    if (rc) at_store_complain(s, layer[i], rc, at_code_text(rc));
    if (damaged) at_store_warn_damaged(s, layer[i]);
  }
  ir_undefer(s->ctx, walk_free, w);
  walk_free(w);
  ir_undefer(s->ctx, sqlite3_free, where);
  sqlite3_free(where);
  return calls;
}

/* ---- seen ---- */

typedef struct seen_list {
  tn_ctx *ctx;
  at_seen *items;
  int *samples; /* behind the time of an item */
  int n;
} seen_list;

/* How much a status says about a config, when trials disagree. */
static int gravity(at_status s) {
  static const int order[AT_STATUS_COUNT] = {
      [AT_OK] = 1, [AT_NOISY] = 0, [AT_OOM] = 2, [AT_COMPILE_ERROR] = 2, [AT_REFUSED] = 2,
      [AT_HANG] = 3, [AT_CRASH] = 4, [AT_WRONG] = 5};
  return order[s];
}

static bool see(void *user, const at_record *r) {
  seen_list *l = user;
  at_seen e = {ir_intern(l->ctx, r->schedule), r->status, 1, NAN, NAN};
  if (r->status == AT_OK) {
    e.cost_ns = r->cost_ns;
    e.median_ns = r->median_ns;
  }
  int n = l->n;
  IR_PUSH(l->ctx, l->items, n, e);
  IR_PUSH(l->ctx, l->samples, l->n, r->status == AT_OK ? r->n : 0);
  return true;
}

typedef struct sorted {
  at_seen e;
  int samples;
} sorted;

static int by_schedule(const void *a, const void *b) {
  const sorted *x = a, *y = b;
  int c = strcmp(x->e.schedule, y->e.schedule);
  return c ? c : (y->samples > x->samples) - (y->samples < x->samples);
}

at_seen *at_store_seen(at_store *s, const at_key *key, int *n) {
  *n = 0;
  if (!at_store_mine(s)) return NULL;
  seen_list l = {.ctx = s->ctx};
  at_filter f = {.kernel = at_or_empty(key->kernel), .target = at_or_empty(key->target),
                 .policy = at_or_empty(key->policy), .codegen = at_or_empty(key->codegen)};
  at_store_each_trial(s, &f, see, &l);
  if (!l.n) return NULL;
  sorted *all = IR_NEW_ARRAY(s->ctx, sorted, l.n);
  for (int i = 0; i < l.n; i++) all[i] = (sorted){l.items[i], l.samples[i]};
  qsort(all, (size_t)l.n, sizeof *all, by_schedule);
  int m = 0;
  for (int i = 0; i < l.n; i++) {
    at_seen *last = m ? &l.items[m - 1] : NULL;
    const at_seen *e = &all[i].e;
    if (!last || last->schedule != e->schedule) { /* interned: equal text is one pointer */
      l.items[m++] = *e;
      continue;
    }
    last->trials++;
    if (gravity(e->status) > gravity(last->status)) last->status = e->status;
    if (isnan(last->cost_ns)) {
      last->cost_ns = e->cost_ns;
      last->median_ns = e->median_ns;
    }
  }
  *n = m;
  return l.items;
}

const at_seen *at_seen_find(const at_seen *seen, int n, const char *schedule) {
  int low = 0, high = n;
  while (low < high) {
    int mid = (low + high) / 2, c = strcmp(seen[mid].schedule, schedule);
    if (c == 0) return &seen[mid];
    if (c < 0) low = mid + 1;
    else high = mid;
  }
  return NULL;
}

/* ---- winners of all tasks ---- */

enum { TASK_TEXTS = 5 }; /* kernel, class, name, target, policy */

/* Texts of a task by uid; freed by the caller. False if it is not there. */
static bool task_texts(at_db *db, const char *uid, char *text[TASK_TEXTS]) {
  int rc;
  sqlite3_stmt *st = at_db_st(db, AT_S_TASK, &rc);
  if (!st) return false;
  at_st_text(st, 1, uid);
  bool ok = sqlite3_step(st) == SQLITE_ROW;
  for (int i = 0; i < TASK_TEXTS; i++) {
    text[i] = ok ? sqlite3_mprintf("%s", at_or_empty((const char *)sqlite3_column_text(st, i))) : NULL;
    if (!text[i]) ok = false;
  }
  sqlite3_reset(st);
  return ok;
}

typedef struct tasks {
  at_reader *reader;
  char *text[TASK_TEXTS];
} tasks;

static void texts_free(tasks *t) {
  for (int i = 0; i < TASK_TEXTS; i++) {
    sqlite3_free(t->text[i]);
    t->text[i] = NULL;
  }
}

static void tasks_free(void *arg) {
  tasks *t = arg;
  texts_free(t);
  at_reader_free(t->reader);
  t->reader = NULL;
}

static bool task_in(at_db *const *layer, int n, const char *uid) {
  bool there = false;
  for (int k = 0; k < n && !there; k++) {
    int rc;
    sqlite3_stmt *st = at_db_st(layer[k], AT_S_TASK, &rc);
    if (!st) continue;
    at_st_text(st, 1, uid);
    there = sqlite3_step(st) == SQLITE_ROW;
    sqlite3_reset(st);
  }
  return there;
}

static bool passes(const char *wanted, const char *is) { return !wanted || !strcmp(wanted, is); }

int64_t at_store_each_winner(at_store *s, const at_filter *filter,
                             bool (*fn)(void *user, const at_key *key, const char *klass, const char *name,
                                        const at_winner *w), void *user) {
  if (!at_store_mine(s)) return 0;
  const at_filter all = {0}, *f = filter ? filter : &all;
  ir_assert(s->ctx, !f->kernel && !f->run);
  tasks *t = IR_NEW(s->ctx, tasks);
  ir_defer(s->ctx, tasks_free, t);
  at_db *layer[AT_LAYERS];
  int layers = at_store_layers(s, layer);
  int64_t calls = 0;
  bool more = true;
  for (int i = 0; i < layers && more; i++) {
    at_reader_free(t->reader);
    t->reader = at_reader_new(layer[i], AT_T_TASK, AT_BY_UID, NULL, NULL, 0, false);
    if (!t->reader) ir_fail(s->ctx, TN_ERESOURCE, "out of memory");
    for (const at_row *r; more && (r = at_reader_next(t->reader));) {
      if (!r->sound || task_in(layer, i, r->uid)) continue;
      texts_free(t);
      if (!task_texts(layer[i], r->uid, t->text)) continue;
      at_key key = {t->text[0], t->text[3], t->text[4], f->codegen};
      at_winner w;
      if (!passes(f->klass, t->text[1]) || !passes(f->name, t->text[2]) || !passes(f->target, key.target) ||
          !passes(f->policy, key.policy) || !at_store_best(s, &key, &w))
        continue;
      if (!f->codegen) w.stale = false;
      calls++;
      more = fn(user, &key, t->text[1], t->text[2], &w);
    }
    int rc = at_reader_error(t->reader);
    if (rc) at_store_complain(s, layer[i], rc, at_code_text(rc));
  }
  ir_undefer(s->ctx, tasks_free, t);
  tasks_free(t);
  return calls;
}
