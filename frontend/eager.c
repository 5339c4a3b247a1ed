/* eager.c — recording: nodes seen before, handles, scopes. See eager.h. */
#include "frontend/eager.h"
#include "ir/interp.h"
#include <stdio.h>
#include <string.h>

static const uint64_t FOR_EVER = UINT64_MAX;

static uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * 0x9e3779b97f4a7c15u;
  return h ^ h >> 29;
}

static uint64_t hash_text(uint64_t h, const char *s) {
  return s ? mix(h, ir_hash_bytes(s, strlen(s), 1)) : mix(h, 0);
}

/* ---- contents ---- */

fe_buffer *fe_buffer_new(tn_ctx *ctx, struct fe_eager *e, size_t bytes) {
  for (fe_buffer **at = &e->spare; *at; at = &(*at)->next) {
    fe_buffer *b = *at;
    if (b->room < bytes || b->room > 2 * bytes + 64) continue;
    *at = b->next;
    e->nspare--;
    b->refs = 1;
    return b;
  }
  fe_buffer *b = ir_raw_alloc(ctx, sizeof *b + bytes + 64);
  *b = (fe_buffer){.raw = b, .room = bytes, .refs = 1};
  b->data = (void *)(((uintptr_t)(b + 1) + 63) & ~(uintptr_t)63);
  return b;
}

void fe_buffer_drop(tn_ctx *ctx, struct fe_eager *e, fe_buffer *b) {
  if (!b || --b->refs) return;
  if (e->nspare >= 64) {
    ir_raw_free(ctx, b->raw);
    return;
  }
  b->next = e->spare;
  e->spare = b;
  e->nspare++;
}

fe_buffer *fe_bound_get(const struct fe_eager *e, const ir_value *v) {
  if (v->id >= e->nbound) return NULL;
  const fe_bound *b = &e->bound[v->id];
  return b->trace == e->trace || b->trace == FOR_EVER ? b->buf : NULL;
}

static void bind(tn_ctx *ctx, struct fe_eager *e, const ir_value *v, fe_buffer *buf, uint64_t trace) {
  if (v->id >= e->nbound) {
    size_t more = e->nbound ? e->nbound * 2 : 1024;
    while (more <= v->id) more *= 2;
    e->bound = ir_grow(ctx, e->bound, e->nbound, more, sizeof *e->bound);
    e->nbound = more;
  }
  fe_bound *b = &e->bound[v->id];
  fe_buffer_drop(ctx, e, b->buf); /* of an earlier trace */
  buf->refs++;
  *b = (fe_bound){buf, trace};
  if (trace == FOR_EVER) return;
  if (e->nheld == e->held_room) {
    int room = e->held_room ? 2 * e->held_room : 256;
    e->held = ir_grow(ctx, e->held, (size_t)e->nheld, (size_t)room, sizeof *e->held);
    e->held_room = room;
  }
  e->held[e->nheld++] = v->id;
}

/* ---- handles ---- */

static void link_live(struct fe_eager *e, tn_tensor *t) {
  t->next = e->live;
  t->prev = NULL;
  if (t->next) t->next->prev = t;
  e->live = t;
}

enum { QUARANTINE = 1024 }; /* handles that stay released before one is used again */

static tn_tensor *handle_new(tn_ctx *ctx, tn_graph *g, ir_value *v) {
  struct fe_eager *e = g->eager;
  tn_tensor *t = e->free;
  uint32_t serial = 0;
  if (t && e->nfree > QUARANTINE) {
    e->free = t->next;
    e->nfree--;
    serial = t->serial + 1;
  } else t = IR_NEW(ctx, tn_tensor);
  *t = (tn_tensor){.graph = g, .v = v, .refs = 1, .trace = e->trace, .serial = serial};
  link_live(e, t);
  return t;
}

tn_tensor *fe_eager_handle(tn_ctx *ctx, tn_graph *g, ir_value *v) {
  struct fe_eager *e = g->eager;
  if (e->nmade == e->made_room) {
    int room = e->made_room ? 2 * e->made_room : 256;
    e->made = ir_grow(ctx, e->made, (size_t)e->nmade, (size_t)room, sizeof *e->made);
    e->made_room = room;
  }
  tn_tensor *t = handle_new(ctx, g, v);
  e->made[e->nmade++] = (fe_made){t, t->serial};
  t->buf = fe_bound_get(e, v);
  if (t->buf) t->buf->refs++;
  return t;
}

static void release(tn_graph *g, tn_tensor *t) {
  struct fe_eager *e = g->eager;
  if (t->kept || --t->refs > 0) return;
  fe_buffer_drop(g->ctx, e, t->buf);
  t->buf = NULL;
  if (t->next) t->next->prev = t->prev;
  if (t->prev) t->prev->next = t->next;
  else e->live = t->next;
  t->next = NULL;
  if (e->nfree++) e->free_last->next = t;
  else e->free = t;
  e->free_last = t;
}

ir_value *fe_eager_value(tn_ctx *ctx, tn_graph *g, tn_tensor *t) {
  struct fe_eager *e = g->eager;
  if (t->graph != g) ir_fail(ctx, TN_EUSAGE, "'%s' belongs to another graph", t->v->name);
  if (t->kept || (t->refs && t->trace == e->trace)) return t->v;
  if (!t->refs) ir_fail(ctx, TN_EUSAGE, "'%s' was released", t->v->name);
  if (!t->buf)
    ir_fail(ctx, TN_EUSAGE, "'%s' was not computed before its step ended (by tn_end, or when parameters were updated): ask for its value before, or keep it",
            t->v->name);
  /* a leaf of this trace, the next of its type */
  int64_t dims[IR_MAX_RANK];
  for (int i = 0; i < t->v->rank; i++) dims[i] = ir_dim(ctx, t->v, i);
  int number = e->nleaves++;
  uint64_t h = mix(mix(3, (uint64_t)number), (uint64_t)t->v->dtype);
  for (int i = 0; i < t->v->rank; i++) h = mix(h, (uint64_t)dims[i]);
  fe_leaf *l = e->leaves[h % FE_TABLE];
  for (; l; l = l->next) {
    bool same = l->hash == h && l->number == number && l->v->dtype == t->v->dtype && l->v->rank == t->v->rank;
    for (int i = 0; same && i < t->v->rank; i++) same = ix_is_int(l->v->dims[i], dims[i]);
    if (same) break;
  }
  if (!l) {
    l = IR_NEW(ctx, fe_leaf);
    *l = (fe_leaf){.next = e->leaves[h % FE_TABLE], .hash = h, .number = number};
    l->v = ir_graph_input(g->g, ir_format(ctx, "array_%d", number), t->v->dtype, t->v->rank, t->v->dims);
    e->leaves[h % FE_TABLE] = l;
  }
  t->v = l->v;
  t->trace = e->trace;
  bind(ctx, e, l->v, t->buf, e->trace);
  return t->v;
}

tn_tensor *fe_eager_const(tn_ctx *ctx, tn_graph *g, tn_dtype t, int rank, const int64_t *dims, const void *data) {
  struct fe_eager *e = g->eager;
  int64_t bytes = (int64_t)ir_dtype_bytes(t);
  uint64_t h = mix(5, (uint64_t)t);
  for (int i = 0; i < rank; i++) {
    h = mix(h, (uint64_t)dims[i]);
    if (!ir_mul_size(bytes, dims[i], &bytes)) ir_fail(ctx, TN_EUSAGE, "the size overflows");
  }
  h = mix(h, ir_hash_bytes(data, (size_t)bytes, 2));
  fe_leaf *l = e->leaves[h % FE_TABLE];
  for (; l; l = l->next) {
    bool same = l->hash == h && l->number < 0 && l->v->dtype == t && l->v->rank == rank;
    for (int i = 0; same && i < rank; i++) same = ix_is_int(l->v->dims[i], dims[i]);
    if (same && memcmp(l->v->data, data, (size_t)bytes) == 0) break;
  }
  if (!l) {
    l = IR_NEW(ctx, fe_leaf);
    *l = (fe_leaf){.next = e->leaves[h % FE_TABLE], .hash = h, .number = -1, .v = ir_graph_const(g->g, NULL, t, rank, dims, data, true)};
    e->leaves[h % FE_TABLE] = l;
  }
  return fe_eager_handle(ctx, g, l->v);
}

tn_tensor *fe_eager_kept(tn_ctx *ctx, tn_graph *g, const char *name, ir_value_kind kind, tn_dtype dtype, int rank, const int64_t *dims,
                         const void *data, const fe_init *init) {
  struct fe_eager *e = g->eager;
  ir_value *v = ir_map_get(&g->names, ir_intern(ctx, name));
  if (v) {
    bool same = v->kind == kind && v->dtype == dtype && v->rank == rank;
    for (int i = 0; same && i < rank; i++) same = ix_is_int(v->dims[i], dims[i]);
    if (!same) ir_fail(ctx, TN_EUSAGE, "'%s' was made with another type or shape before", name);
    return ir_map_get(&g->tensors, v);
  }
  v = ir_graph_const(g->g, name, dtype, rank, dims, NULL, false);
  fe_buffer *b = fe_buffer_new(ctx, e, (size_t)v->data_bytes);
  if (data) memcpy(b->data, data, (size_t)v->data_bytes);
  else if (init) fe_init_fill(init, v, b->data);
  else memset(b->data, 0, (size_t)v->data_bytes);
  v->kind = kind;
  bind(ctx, e, v, b, FOR_EVER);
  tn_tensor *t = handle_new(ctx, g, v);
  t->kept = true;
  t->buf = b; /* the first reference */
  ir_map_set(&g->names, v->name, v);
  ir_map_set(&g->tensors, v, t);
  return t;
}

/* ---- nodes ---- */

typedef struct record_args {
  tn_graph *g;
  const char *op, *attrs;
  int nin;
  tn_tensor *const *in;
  int nout;
  tn_tensor **out;
} record_args;

static bool same_entry(const fe_entry *f, const record_args *a, uint64_t h, ir_value *const *in) {
  if (f->hash != h || f->nin != a->nin || f->nout != a->nout || strcmp(f->op, a->op) != 0) return false;
  if (!f->attrs != !a->attrs || (f->attrs && strcmp(f->attrs, a->attrs) != 0)) return false;
  return a->nin == 0 || memcmp(f->in, in, (size_t)a->nin * sizeof *in) == 0;
}

static void record(tn_ctx *ctx, void *arg) {
  record_args *a = arg;
  tn_graph *g = a->g;
  struct fe_eager *e = g->eager;
  if (!a->op) ir_fail(ctx, TN_EUSAGE, "the op's name is null");
  if (a->nin > e->room) {
    e->room = 2 * a->nin;
    e->values = IR_NEW_ARRAY(ctx, ir_value *, e->room);
  }
  ir_value **in = e->values;
  uint64_t h = hash_text(hash_text(7, a->op), a->attrs);
  for (int i = 0; i < a->nin; i++) {
    in[i] = a->in[i] == tn_omit() ? NULL : fe_eager_value(ctx, g, a->in[i]);
    h = mix(h, in[i] ? in[i]->id : 0);
  }
  fe_entry *f = e->entries[h % FE_TABLE];
  while (f && !same_entry(f, a, h, in)) f = f->next;
  if (!f) {
    f = IR_NEW(ctx, fe_entry);
    *f = (fe_entry){.hash = h, .op = ir_strdup(ctx, a->op), .attrs = a->attrs ? ir_strdup(ctx, a->attrs) : NULL, .nin = a->nin, .nout = a->nout};
    f->in = ir_grow(ctx, in, (size_t)a->nin, (size_t)a->nin, sizeof *in);
    f->out = fe_make_node(ctx, g, NULL, a->op, a->attrs, a->nin, f->in, a->nout)->out;
    f->next = e->entries[h % FE_TABLE];
    e->entries[h % FE_TABLE] = f;
  }
  for (int i = 0; i < a->nout; i++) a->out[i] = fe_eager_handle(ctx, g, f->out[i]);
}

tn_status fe_eager_node(tn_graph *g, const char *op, const char *attrs, int nin, tn_tensor *const *in, int nout, tn_tensor **out) {
  record_args a = {g, op, attrs, nin, in, nout, out};
  tn_status status = fe_protect(g, record, &a);
  if (status == TN_OK && g->eager->each && !g->eager->capturing) status = fe_eager_eval(g, nout, out, false, NULL);
  for (int i = 0; i < nout && status != TN_OK; i++) out[i] = NULL;
  return status;
}

typedef struct update_args {
  tn_graph *g;
  tn_tensor *kept, *value;
} update_args;

static void update(tn_ctx *ctx, void *arg) {
  update_args *a = arg;
  struct fe_eager *e = a->g->eager;
  ir_value *t = fe_eager_value(ctx, a->g, a->kept), *v = fe_eager_value(ctx, a->g, a->value);
  if (!a->kept->kept) ir_fail(ctx, TN_EUSAGE, "'%s' is neither a parameter nor a state", t->name);
  for (int i = 0; i < e->nupdates; i++)
    if (e->updates[i].kept == a->kept) ir_fail(ctx, TN_EUSAGE, "'%s' is updated already", t->name);
  bool same = t->dtype == v->dtype && t->rank == v->rank;
  for (int i = 0; same && i < t->rank; i++) same = t->dims[i] == v->dims[i];
  if (!same) ir_fail(ctx, TN_EUSAGE, "'%s' is updated by '%s', which has another type or shape", t->name, v->name);
  if (e->nupdates == e->updates_room) {
    int room = e->updates_room ? 2 * e->updates_room : 64;
    e->updates = ir_grow(ctx, e->updates, (size_t)e->nupdates, (size_t)room, sizeof *e->updates);
    e->updates_room = room;
  }
  e->updates[e->nupdates++] = (fe_pending){a->kept, v};
}

tn_status fe_eager_update(tn_graph *g, tn_tensor *kept, tn_tensor *value) {
  update_args a = {g, kept, value};
  return fe_protect(g, update, &a);
}

/* ---- calls and scopes ---- */

void fe_eager_keep(tn_graph *g, int n, tn_tensor *const *ts) {
  if (!g->eager) return;
  for (int i = 0; i < n; i++)
    if (ts[i]) ts[i]->held = true;
}

void fe_eager_leave(tn_graph *g, tn_tensor *result) {
  struct fe_eager *e = g->eager;
  int n = e->nrecent;
  for (int i = e->nrecent; i < e->nmade; i++) {
    tn_tensor *t = e->made[i].t;
    if (t->serial != e->made[i].serial || !t->refs) continue;
    if (t != result && !t->held) {
      if (t != g->step) release(g, t);
      continue;
    }
    t->held = false;
    if (e->nscopes) e->made[n++] = e->made[i];
  }
  e->nmade = e->nrecent = n;
}

/* What is recorded from here on has leaves, and a number of the run, of its own. */
static void end_trace(tn_graph *g) {
  struct fe_eager *e = g->eager;
  for (int i = 0; i < e->nheld; i++) {
    fe_bound *b = &e->bound[e->held[i]];
    fe_buffer_drop(g->ctx, e, b->buf);
    *b = (fe_bound){0};
  }
  e->trace++;
  e->nheld = e->nleaves = e->nknown = g->nlayers = 0;
  if (g->step) release(g, g->step);
  g->step = NULL;
  g->ndropouts = 0;
}

/* ---- values ---- */

typedef struct eval_args {
  tn_graph *g;
  int n;
  tn_tensor *const *ts;
  bool updates;
  fe_plan *plan;
} eval_args;

static void *scratch(tn_ctx *ctx, struct fe_eager *e, size_t bytes) {
  if (bytes > e->scratch_room) {
    e->scratch = ir_alloc(ctx, 2 * bytes);
    e->scratch_room = 2 * bytes;
  }
  return e->scratch;
}

static void take_known(tn_graph *g) {
  struct fe_eager *e = g->eager;
  for (tn_tensor *t = e->live; t; t = t->next)
    if (!t->buf && t->trace == e->trace && (t->buf = fe_bound_get(e, t->v))) t->buf->refs++;
}

static void eval(tn_ctx *ctx, void *arg) {
  eval_args *a = arg;
  tn_graph *g = a->g;
  struct fe_eager *e = g->eager;
  int nupdates = a->updates ? e->nupdates : 0;
  size_t most = (size_t)a->n + 2 * (size_t)nupdates + (size_t)e->nknown + 2;
  ir_value **roots = scratch(ctx, e, (size_t)a->n * sizeof *roots + most * sizeof(uint32_t));
  uint32_t *key = (uint32_t *)(roots + a->n);
  int nroots = 0, nkey = 0;
  for (int i = 0; i < a->n; i++) {
    tn_tensor *t = a->ts[i];
    if (t->buf && t->refs && t->graph == g) continue;
    ir_value *v = fe_eager_value(ctx, g, t);
    bool again = false;
    for (int k = 0; k < nroots; k++) again |= roots[k] == v;
    if (!again) roots[nroots++] = v;
  }
  a->plan = NULL;
  if (!nroots && !nupdates) return;
  for (int i = 0; i < nroots; i++) key[nkey++] = roots[i]->id;
  key[nkey++] = UINT32_MAX;
  for (int i = 0; i < nupdates; i++) key[nkey++] = e->updates[i].kept->v->id, key[nkey++] = e->updates[i].value->id;
  key[nkey++] = UINT32_MAX;
  for (int i = 0; i < e->nknown; i++) key[nkey++] = e->known[i];
  fe_plan *p = fe_plan_get(ctx, g, nroots, roots, nupdates, nkey, key);
  fe_buffer **bufs = scratch(ctx, e, (size_t)(p->nin + p->nout) * sizeof *bufs);
  for (int i = 0; i < p->nin; i++) bufs[i] = fe_bound_get(e, p->in[i]);
  fe_plan_run(ctx, g, p, bufs, bufs + p->nin);
  for (int i = 0; i < p->nout; i++) {
    bind(ctx, e, p->out[i], bufs[p->nin + i], e->trace);
    bufs[p->nin + i]->refs--; /* the binding holds it */
    if (e->nknown == e->known_room) {
      int room = e->known_room ? 2 * e->known_room : 64;
      e->known = ir_grow(ctx, e->known, (size_t)e->nknown, (size_t)room, sizeof *e->known);
      e->known_room = room;
    }
    e->known[e->nknown++] = p->out[i]->id;
  }
  take_known(g);
  if (nupdates) {
    e->nupdates = 0;
    end_trace(g);
  }
  a->plan = p;
}

tn_status fe_eager_eval(tn_graph *g, int n, tn_tensor *const *ts, bool updates, fe_plan **plan) {
  eval_args a = {g, n, ts, updates, NULL};
  tn_status status = fe_protect(g, eval, &a);
  if (plan) *plan = a.plan;
  return status;
}

/* ---- public ---- */

static void free_eager(void *arg) {
  tn_graph *g = arg;
  struct fe_eager *e = g->eager;
  for (tn_tensor *t = e->live; t; t = t->next)
    if (t->buf && !--t->buf->refs) ir_raw_free(g->ctx, t->buf->raw);
  for (size_t i = 0; i < e->nbound; i++)
    if (e->bound[i].buf && !--e->bound[i].buf->refs) ir_raw_free(g->ctx, e->bound[i].buf->raw);
  for (fe_buffer *b = e->spare, *next; b; b = next) next = b->next, ir_raw_free(g->ctx, b->raw);
  for (fe_compiled *c = e->modules, *next; c; c = next) next = c->next, tn_ctx_free(c->own); /* it lies there itself */
}

typedef struct eager_args {
  const char *name;
  const tn_options *o;
  tn_graph *g;
} eager_args;

static const char *copied(tn_ctx *ctx, const char *s) { return s ? ir_strdup(ctx, s) : NULL; }

static void eager_new(tn_ctx *ctx, void *arg) {
  eager_args *a = arg;
  struct fe_eager *e = a->g->eager = IR_NEW(ctx, struct fe_eager);
  e->most = FE_MODULES;
  e->trace = 1;
  if (a->o) e->options = *a->o;
  e->options.cpu = copied(ctx, e->options.cpu), e->options.triple = copied(ctx, e->options.triple);
  e->options.db = copied(ctx, e->options.db), e->options.accuracy = copied(ctx, e->options.accuracy);
  ir_defer(ctx, free_eager, a->g);
}

tn_graph *tn_eager(tn_ctx *ctx, const char *name, const tn_options *o) {
  tn_graph *g = tn_graph_new(ctx, name);
  if (!fe_alive(g)) return NULL;
  eager_args a = {name, o, g};
  return ir_protect(ctx, eager_new, &a) == TN_OK ? g : NULL;
}

/* Whether g is an eager graph; an error when not. */
static bool is_eager(tn_graph *g) {
  if (g->eager) return true;
  fe_error(g, TN_EUSAGE, "the graph was not made by tn_eager");
  return false;
}

void tn_eager_each(tn_graph *g, int on) {
  if (fe_alive(g) && g->eager) g->eager->each = on != 0;
}

void tn_eager_limit(tn_graph *g, int modules) {
  if (!fe_alive(g) || !g->eager) return;
  g->eager->most = modules < 1 ? 1 : modules;
  fe_eager_trim(g->eager, g->eager->most);
}

void tn_eager_counts(tn_graph *g, int *compiled, int *runs) {
  if (!fe_alive(g) || !g->eager) return;
  if (compiled) *compiled = g->eager->ncompiled;
  if (runs) *runs = g->eager->nruns;
}

typedef struct array_args {
  tn_graph *g;
  tn_dtype dtype;
  int rank;
  const int64_t *dims;
  const void *data;
  tn_tensor *t;
} array_args;

/* The value that says the type of an array: one per type, in no trace. */
static void array_make(tn_ctx *ctx, void *arg) {
  array_args *a = arg;
  tn_graph *g = a->g;
  struct fe_eager *e = g->eager;
  if (a->dtype <= TN_NONE || a->dtype >= TN_INDEX) ir_fail(ctx, TN_EUSAGE, "dtype %d is none of tn_dtype's", (int)a->dtype);
  if (a->rank < 0 || a->rank > TN_MAX_RANK || (a->rank && !a->dims)) ir_fail(ctx, TN_EUSAGE, "rank %d, or null dims", a->rank);
  int64_t bytes = (int64_t)ir_dtype_bytes(a->dtype);
  uint64_t h = mix(11, (uint64_t)a->dtype);
  for (int i = 0; i < a->rank; i++) {
    if (!ir_mul_size(bytes, a->dims[i], &bytes)) ir_fail(ctx, TN_EUSAGE, "axis %d has extent %lld", i, (long long)a->dims[i]);
    h = mix(h, (uint64_t)a->dims[i]);
  }
  if (bytes && !a->data) ir_fail(ctx, TN_EUSAGE, "the data is null");
  fe_leaf *l = e->leaves[h % FE_TABLE];
  for (; l; l = l->next) {
    bool same = l->hash == h && l->number == -2 && l->v->dtype == a->dtype && l->v->rank == a->rank;
    for (int i = 0; same && i < a->rank; i++) same = ix_is_int(l->v->dims[i], a->dims[i]);
    if (same) break;
  }
  if (!l) {
    ix dims[IR_MAX_RANK];
    for (int i = 0; i < a->rank; i++) dims[i] = ix_index(ctx, a->dims[i]);
    l = IR_NEW(ctx, fe_leaf);
    *l = (fe_leaf){.next = e->leaves[h % FE_TABLE], .hash = h, .number = -2, .v = ir_graph_input(g->g, "array", a->dtype, a->rank, dims)};
    e->leaves[h % FE_TABLE] = l;
  }
  fe_buffer *b = fe_buffer_new(ctx, e, (size_t)bytes);
  if (bytes) memcpy(b->data, a->data, (size_t)bytes);
  a->t = fe_eager_handle(ctx, g, l->v);
  a->t->trace = 0; /* a leaf when it is first used */
  a->t->buf = b;
}

tn_tensor *tn_array(tn_graph *g, tn_dtype dtype, int rank, const int64_t dims[], const void *data) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_array");
  array_args a = {g, dtype, rank, dims, data, NULL};
  if (is_eager(g)) fe_protect(g, array_make, &a);
  return fe_leave(g, &m, a.t);
}

static bool check_all(tn_graph *g, int n, tn_tensor *const ts[]) {
  bool null = n < 0 || (n && !ts);
  for (int i = 0; i < n && !null; i++) null = !ts[i];
  if (null) fe_null(g, "a tensor");
  for (int i = 0; i < n && !null; i++)
    if (ts[i] == tn_omit()) return fe_error(g, TN_EUSAGE, "tn_omit() is no tensor"), false;
  return !null;
}

tn_status tn_eval(tn_graph *g, int n, tn_tensor *const ts[]) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_eval");
  tn_status status = TN_EUSAGE;
  if (!is_eager(g) || !check_all(g, n, ts)) status = g->status;
  else if (g->eager->capturing) status = fe_error(g, TN_EUSAGE, "values cannot be asked for while a function is compiled whole; run it eagerly");
  else status = fe_eager_eval(g, n, ts, true, NULL);
  fe_leave(g, &m, NULL);
  return status;
}

const void *tn_value(tn_graph *g, tn_tensor *t) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_value");
  tn_status status = tn_eval(g, 1, &t);
  fe_leave(g, &m, NULL);
  return status == TN_OK ? t->buf->data : NULL;
}

void tn_release(tn_graph *g, tn_tensor *t) {
  if (!fe_alive(g) || !g->eager || !t || t == tn_omit() || t->graph != g) return;
  if (t->refs) release(g, t);
}

tn_tensor *tn_retain(tn_graph *g, tn_tensor *t) {
  if (fe_alive(g) && g->eager && t && t->graph == g && t->refs) t->refs++;
  return t;
}

static void scope_open(tn_ctx *ctx, void *arg) {
  struct fe_eager *e = ((tn_graph *)arg)->eager;
  IR_PUSH(ctx, e->scopes, e->nscopes, e->nmade);
}

tn_status tn_begin(tn_graph *g) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_begin");
  tn_status status = is_eager(g) ? fe_protect(g, scope_open, g) : TN_EUSAGE;
  if (status == TN_OK) g->status = TN_OK; /* a new step, a new chance */
  fe_leave(g, &m, NULL);
  return status;
}

tn_status tn_end(tn_graph *g, int nkeep, tn_tensor *const keep[]) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_end");
  tn_status status = TN_OK;
  struct fe_eager *e = g->eager;
  if (!is_eager(g) || !check_all(g, nkeep, keep)) status = g->status;
  else if (!e->nscopes) status = fe_error(g, TN_EUSAGE, "there is no tn_begin to it");
  else {
    bool outermost = e->nscopes == 1;
    int start = e->scopes[e->nscopes - 1], n = start;
    if (outermost && !e->capturing) status = fe_eager_eval(g, nkeep, keep, true, NULL);
    for (int i = 0; i < nkeep; i++) keep[i]->held = true;
    for (int i = start; i < e->nmade; i++) {
      tn_tensor *t = e->made[i].t;
      if (t->serial != e->made[i].serial || !t->refs) continue;
      if (t->held && !outermost) e->made[n++] = e->made[i];
      else if (!t->held) release(g, t);
    }
    for (int i = 0; i < nkeep; i++) keep[i]->held = false;
    e->nmade = e->nrecent = n;
    e->nscopes--;
    if (outermost) {
      e->nupdates = 0; /* of a step that failed */
      end_trace(g);
    }
  }
  fe_leave(g, &m, NULL);
  return status;
}

tn_status tn_print(tn_graph *g, tn_tensor *t) {
  const char *p = tn_value(g, t);
  if (!p) return TN_EUSAGE;
  enum { MOST = 100 };
  int64_t dims[TN_MAX_RANK], n = 1;
  int rank = tn_shape(t, dims);
  tn_dtype type = tn_type(t);
  printf("%s: %s[", tn_name(t), ir_dtype_name(type));
  for (int i = 0; i < rank; i++) printf("%s%lld", i ? ", " : "", (long long)dims[i]), n *= dims[i];
  printf("]");
  for (int64_t i = 0; i < n && i < MOST; i++) {
    ir_scalar s = ir_scalar_load(type, p + i * (int64_t)ir_dtype_bytes(type));
    bool row = rank > 1 && i % dims[rank - 1] == 0;
    if (ir_is_float(type)) printf("%s%g", row ? "\n  " : " ", s.f);
    else printf("%s%lld", row ? "\n  " : " ", (long long)s.i);
  }
  printf(n > MOST ? " ...\n" : "\n");
  fflush(stdout);
  return TN_OK;
}

/* ---- files ---- */

void fe_eager_expose(tn_graph *g) {
  for (int i = 0; i < g->g->nparams; i++) {
    ir_value *v = g->g->params[i];
    fe_buffer *b = v->kind == IR_VALUE_CONST ? NULL : fe_bound_get(g->eager, v);
    if (b && v->kind == IR_VALUE_PARAM) v->raw = b->data;
    if (b && v->kind == IR_VALUE_STATE) v->start = b->data;
  }
}

void fe_eager_absorb(tn_graph *g) {
  for (int i = 0; i < g->g->nparams; i++) {
    ir_value *v = g->g->params[i];
    fe_buffer *b = v->kind == IR_VALUE_CONST ? NULL : fe_bound_get(g->eager, v);
    const void *from = v->kind == IR_VALUE_STATE ? v->start : v->raw;
    if (!b || !from) continue;
    if (from != b->data) memcpy(b->data, from, (size_t)v->data_bytes);
    v->raw = v->start = NULL;
  }
}
