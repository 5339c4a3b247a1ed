/* schedule_cache.c — steps about the part of an operand that one iteration of a loop reads:
 * cache B v -> P copies it into a dense local buffer first (packing of a dynamic operand),
 * turn B v a -> P does so with axis a innermost in the copy (read across its rows),
 * fill P w k -> c makes the copy within its first use,
 * prefetch B v D w -> p asks for it D iterations ahead; of an output, for what will be written. */
#include "lower/schedule_internal.h"
#include <string.h>

enum { MAX_PART = 1 << 20, MAX_TERMS = 64, MAX_LINES = 1024, MAX_WRITTEN = 32, MAX_UNROLLED = 16, MAX_UNROLLED_READ = 4 };

typedef struct part {
  tn_ctx *ctx;
  ir_buf *buf;
  const ir_var *inner[64]; /* loops and lets inside v: what varies within an iteration */
  int ninner;
  int rank, joined;        /* axis `joined` and the next one are walked as one (-1: none are), which has the first's place */
  ix shape[IR_MAX_RANK];   /* with those joined */
  ix start[IR_MAX_RANK];   /* null: no load seen yet */
  int64_t lo[IR_MAX_RANK], hi[IR_MAX_RANK]; /* reach of the inner terms, both included */
  const char *why;
  ir_buf *local;
  const char *name;
  int axis;                /* of the copy that is innermost in memory; -1: the last */
  bool join;               /* axes may be joined */
  bool asked;              /* what is asked for ahead is no use of it */
  bool written;            /* what an iteration writes, not what it reads */
  ix when;                 /* written: under conditions that are the same for a whole iteration; null: always */
} part;

static void collect_inner(part *p, const ir_stmt *s) {
  if (!s) return;
  if (s->kind == IR_FOR || s->kind == IR_LET) {
    if (p->ninner == IR_COUNT(p->inner)) p->why = "too many loops inside";
    else p->inner[p->ninner++] = s->var;
  }
  for (int i = 0; i < s->n; i++) collect_inner(p, s->items[i]);
  collect_inner(p, s->body);
  collect_inner(p, s->other);
}

static bool is_inner(const part *p, ix e) {
  if (e->loads) return true; /* data decides: only its range is known */
  for (int i = 0; i < p->ninner; i++)
    if (ix_uses_var(e, p->inner[i])) return true;
  return false;
}

/* Indices (e / D, e mod D), as a fused loop leaves them, as the single index e; null: they are not. */
static ix together(tn_ctx *ctx, const ir_buf *b, const ix *args, int d) {
  int64_t extent;
  if (!args[d]->divides || !args[d + 1]->divides || !ix_const_value(b->shape[d + 1], &extent)) return NULL;
  ix e = ix_add(ctx, ix_muli(ctx, args[d], extent), args[d + 1]);
  return e->divides ? NULL : e;
}

/* The axes of the part, once: those that the first load walks together become one. */
static void find_axes(part *p, ix load, bool join) {
  p->rank = p->buf->rank;
  p->joined = -1;
  for (int d = 0; d + 1 < load->nargs && join && p->joined < 0; d++)
    if (together(p->ctx, p->buf, load->args, d)) p->joined = d;
  for (int d = 0; d < p->rank; d++) p->shape[d] = p->buf->shape[d];
  if (p->joined < 0) return;
  p->shape[p->joined] = ix_mul(p->ctx, p->shape[p->joined], p->shape[p->joined + 1]);
  p->rank--;
  for (int d = p->joined + 1; d < p->rank; d++) p->shape[d] = p->buf->shape[d + 1];
}

/* The load's index along axis d of the part; null: not walked as the first load does. */
static ix index_of(const part *p, ix load, int d) {
  if (p->joined < 0 || d < p->joined) return load->args[d];
  return d > p->joined ? load->args[d + 1] : together(p->ctx, p->buf, load->args, d);
}

/* The buffer's own index of element `at` of it, given along the part's axes. */
static ix load_at(const part *p, const ix *at) {
  ix index[IR_MAX_RANK];
  for (int d = 0; d < p->rank; d++) index[d + (p->joined >= 0 && d > p->joined)] = at[d];
  if (p->joined >= 0) {
    ix extent = p->buf->shape[p->joined + 1];
    index[p->joined] = ix_div(p->ctx, at[p->joined], extent);
    index[p->joined + 1] = ix_rem(p->ctx, at[p->joined], extent);
  }
  return ix_load(p->ctx, p->buf, index);
}

static void add_load(part *p, ix load) {
  tn_ctx *ctx = p->ctx;
  if (!p->start[0]) find_axes(p, load, p->join);
  for (int d = 0; d < p->rank && !p->why; d++) {
    int64_t c0, coef[MAX_TERMS], lo, hi;
    ix term[MAX_TERMS], start = ix_index(ctx, 0), at = index_of(p, load, d);
    if (!at) {
      p->why = "two loads walk it differently";
      return;
    }
    int n = ix_linear(at, &c0, coef, term, MAX_TERMS);
    if (n < 0) {
      p->why = "an index has too many terms";
      return;
    }
    lo = hi = c0;
    for (int i = 0; i < n; i++) {
      if (!is_inner(p, term[i])) {
        start = ix_add(ctx, start, ix_muli(ctx, term[i], coef[i]));
        continue;
      }
      int64_t a, b;
      if (term[i]->lo == INT64_MIN || term[i]->hi == INT64_MAX || term[i]->op == IX_LOAD || __builtin_mul_overflow(term[i]->lo, coef[i], &a) ||
          __builtin_mul_overflow(term[i]->hi, coef[i], &b)) {
        p->why = "an index has no known range inside the loop";
        return;
      }
      lo += a < b ? a : b;
      hi += a < b ? b : a;
    }
    if (!p->start[d]) p->start[d] = start, p->lo[d] = lo, p->hi[d] = hi;
    else if (p->start[d] != start) p->why = "two loads start at different places";
    if (lo < p->lo[d]) p->lo[d] = lo;
    if (hi > p->hi[d]) p->hi[d] = hi;
  }
}

static void look(void *user, ix e) {
  part *p = user;
  if (e->op == IX_LOAD && e->u.buf == p->buf) add_load(p, e);
}

static void collect_loads(part *p, const ir_stmt *s) {
  if (!s || (p->asked && s->kind == IR_TILE && strncmp(s->atom, "prefetch", 8) == 0)) return;
  if (s->value) ix_walk(p->ctx, s->value, look, p);
  if (s->kind == IR_FOR) ix_walk(p->ctx, s->lo, look, p), ix_walk(p->ctx, s->hi, look, p);
  if (s->kind == IR_STORE) {
    if (s->buf == p->buf) p->why = "it is written inside the loop";
    for (int i = 0; i < s->buf->rank; i++) ix_walk(p->ctx, s->index[i], look, p);
  }
  for (int i = 0; i < s->n; i++) collect_loads(p, s->items[i]);
  collect_loads(p, s->body);
  collect_loads(p, s->other);
}

/* The same for stores: `when` is what is known of the conditions around them. */
static void collect_stores(part *p, const ir_stmt *s, ix when) {
  if (!s) return;
  if (s->kind == IR_STORE && s->buf == p->buf) {
    if (p->start[0] && p->when != when) p->when = NULL;
    else p->when = when;
    add_load(p, ix_load(p->ctx, s->buf, s->index));
  }
  for (int i = 0; i < s->n; i++) collect_stores(p, s->items[i], when);
  bool whole = s->kind == IR_IF && !is_inner(p, s->value);
  collect_stores(p, s->body, !whole ? when : when ? ix_and(p->ctx, when, s->value) : s->value);
  collect_stores(p, s->other, !whole ? when : NULL);
}

static ix from_local(void *user, ix load) {
  part *p = user;
  if (load->u.buf != p->buf) return NULL;
  ix index[IR_MAX_RANK];
  for (int d = 0; d < p->rank; d++) index[d] = ix_addi(p->ctx, ix_sub(p->ctx, index_of(p, load, d), p->start[d]), -p->lo[d]);
  return ix_load(p->ctx, p->local, index);
}
static ix cache_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, from_local, r->user); }

/* What an iteration of the loop reads or writes: start, lo and hi of each axis, or why not. */
static void find_part(part *p, const ir_stmt *loop) {
  collect_inner(p, loop->body);
  if (p->written) collect_stores(p, loop->body, NULL);
  else collect_loads(p, loop->body);
  if (!p->why && p->buf->rank && !p->start[0]) p->why = p->written ? "the loop does not write it" : "the loop does not read it";
  if (!p->why && !p->buf->rank) p->why = "it is a single element";
}

/* The extents of the part, no larger than the buffer: guards keep the loads inside. */
static void box_of(part *p, int64_t *size) {
  for (int d = 0; d < p->rank && !p->why; d++) {
    int64_t extent;
    size[d] = p->hi[d] - p->lo[d] + 1;
    if (!ix_const_value(p->shape[d], &extent) || size[d] <= extent) continue;
    size[d] = extent;
    p->start[d] = ix_index(p->ctx, 0);
    p->lo[d] = 0;
  }
}

static const ir_stmt *do_cache(sched *s, const ir_stmt *loop, void *user) {
  tn_ctx *ctx = s->ctx;
  part *p = user;
  find_part(p, loop);
  int rank = p->rank;
  int64_t size[IR_MAX_RANK], elements = 1;
  box_of(p, size);
  ix shape[IR_MAX_RANK];
  for (int d = 0; d < rank && !p->why; d++) {
    shape[d] = ix_index(ctx, size[d]);
    if (!ir_mul_size(elements, size[d], &elements) || elements > MAX_PART) p->why = "the part is too large to copy";
  }
  if (p->why) {
    refuse(s, "%s", p->why);
    return NULL;
  }
  const ir_layout *layout = NULL;
  if (p->axis >= 0 && p->axis != rank - 1) {
    ir_text perm = {.ctx = ctx};
    ir_put(&perm, "perm");
    for (int d = 0; d < rank; d++)
      if (d != p->axis) ir_put(&perm, " %d", d);
    ir_put(&perm, " %d", p->axis);
    layout = ir_layout_parse(ctx, ir_text_str(&perm));
  }
  p->local = ir_buf_new(ctx, p->name, p->buf->dtype, rank, shape, layout, IR_LOCAL);
  ir_var *v[IR_MAX_RANK];
  ix at[IR_MAX_RANK], from[IR_MAX_RANK], inside = ix_bool(ctx, true);
  for (int d = 0; d < rank; d++) {
    v[d] = ir_var_new(ctx, ir_format(ctx, "%s.%d", p->name, d), TN_INDEX, 0, shape[d]->u.i - 1);
    v[d]->independent = true;
    at[d] = v[d]->expr;
    from[d] = ix_addi(ctx, ix_add(ctx, p->start[d], at[d]), p->lo[d]);
    inside = ix_and(ctx, inside, ix_within(ctx, from[d], ix_index(ctx, 0), p->shape[d]));
  }
  const ir_stmt *copy = ir_if(ctx, inside, ir_store(ctx, p->local, at, IR_SET, load_at(p, from)), NULL);
  for (int d = rank; d-- > 0;) copy = ir_for(ctx, v[d], ix_index(ctx, 0), shape[d], IR_SERIAL, copy);
  ir_rewriter r = {.ctx = ctx, .user = p, .expr = cache_expr};
  const ir_stmt *items[2] = {copy, ir_rewrite(&r, loop->body)};
  return ir_for(ctx, loop->var, loop->lo, loop->hi, loop->loop, ir_alloc_stmt(ctx, p->local, ir_seq(ctx, 2, items)));
}

static ir_buf *operand(const sched *s, const char *name) {
  for (int i = 0; i < s->k->nbufs; i++)
    if (strcmp(s->k->bufs[i]->name, name) == 0) return s->k->bufs[i];
  return NULL;
}

/* A copy in memory that a step made, by its name. */
static ir_buf *find_copy(const ir_stmt *s, const char *name) {
  if (!s) return NULL;
  if (s->kind == IR_ALLOC && s->buf->space == IR_LOCAL && strcmp(s->buf->name, name) == 0) return s->buf;
  ir_buf *b = NULL;
  for (int i = 0; i < s->n && !b; i++) b = find_copy(s->items[i], name);
  if (!b) b = find_copy(s->body, name);
  return b ? b : find_copy(s->other, name);
}

static bool cache(sched *s, int axis, const char *name) {
  part p = {.ctx = s->ctx, .buf = operand(s, s->arg[0]), .axis = axis, .name = name, .join = axis < 0};
  const ir_stmt *loop = sched_loop(s, s->arg[1]);
  if (!loop) return false;
  if (!p.buf) return refuse(s, "there is no operand '%s'", s->arg[0]);
  if (p.buf->access != IR_IN) return refuse(s, "'%s' is written by the kernel", p.buf->name);
  if (loop->loop == IR_VECTOR || loop->loop == IR_UNROLL) return refuse(s, "only serial and parallel loops hold a copy");
  for (int d = 0; d < p.buf->rank; d++)
    if (!sched_new_name(s, ir_format(s->ctx, "%s.%d", name, d))) return false;
  if (axis >= p.buf->rank) return refuse(s, "'%s' has no axis %d", p.buf->name, axis);
  return sched_replace(s, s->arg[1], do_cache, &p);
}

bool sched_cache(sched *s) { return cache(s, -1, s->arg[2]); }
bool sched_turn(sched *s) { return s->num[2] < 0 || s->num[2] >= IR_MAX_RANK ? refuse(s, "axis %lld", (long long)s->num[2]) : cache(s, (int)s->num[2], s->arg[3]); }

/* ---- fill P w k -> c ---- */

typedef struct filling {
  sched *s;
  ir_buf *copy;
  const ir_stmt *home, *use, *w, *k; /* where the copy is alive; what follows its making, down to its use */
  const ir_stmt *path[32];       /* from home down to k, both included */
  int npath, nw;                 /* nw: of them above w's body */
  ir_var *at[IR_MAX_RANK];       /* the copying loops; null: an axis of one element */
  ix value, inside;              /* copy[at] = value if inside */
  ix to[IR_MAX_RANK];            /* what at becomes */
  bool waits[32];                /* path: a loop whose later iterations use what the first one made */
  ix first;                      /* the first of all those */
} filling;

/* The nest that made the copy, as cache left it. */
static bool read_copying(filling *f, const ir_stmt *s) {
  const ir_stmt *loops[IR_MAX_RANK];
  int n = 0;
  f->inside = ix_bool(f->s->ctx, true);
  for (; s && s->kind == IR_FOR && s->loop == IR_SERIAL && n < IR_MAX_RANK; s = s->body) loops[n++] = s;
  if (s && s->kind == IR_IF && !s->other) f->inside = s->value, s = s->body;
  if (!s || s->kind != IR_STORE || s->buf != f->copy || s->op != IR_SET) return false;
  f->value = s->value;
  for (int d = 0; d < f->copy->rank; d++) {
    for (int i = 0; i < n; i++)
      if (s->index[d] == loops[i]->var->expr && ix_is_int(loops[i]->lo, 0) && loops[i]->hi == f->copy->shape[d]) f->at[d] = loops[i]->var;
    if (!f->at[d] && !(ix_is_int(f->copy->shape[d], 1) && ix_is_int(s->index[d], 0))) return false;
  }
  return true;
}

static bool find_home(filling *f, const ir_stmt *s, const char *name) {
  if (!s || f->home) return f->home != NULL;
  if (s->kind == IR_ALLOC && s->buf->space == IR_LOCAL && strcmp(s->buf->name, name) == 0) {
    f->home = s;
    f->copy = s->buf;
    return true;
  }
  for (int i = 0; i < s->n; i++)
    if (find_home(f, s->items[i], name)) return true;
  return find_home(f, s->body, name) || find_home(f, s->other, name);
}

static bool find_use(filling *f, const ir_stmt *s) {
  if (!s || f->npath == IR_COUNT(f->path)) return false;
  f->path[f->npath++] = s;
  if (s == f->w) f->nw = f->npath;
  if (s == f->k) return true;
  for (int i = 0; i < s->n; i++)
    if (find_use(f, s->items[i])) return true;
  if (find_use(f, s->body) || find_use(f, s->other)) return true;
  f->npath--;
  return false;
}

typedef struct reading {
  const ir_buf *buf;
  bool any;
} reading;

static void is_read(void *user, ix e) {
  reading *r = user;
  r->any |= e->op == IX_LOAD && e->u.buf == r->buf;
}

/* Whether something outside of `but` touches the buffer. */
static bool touched(tn_ctx *ctx, const ir_stmt *s, const ir_stmt *but, const ir_buf *b) {
  reading r = {.buf = b};
  if (!s || s == but) return false;
  if (s->value) ix_walk(ctx, s->value, is_read, &r);
  if (s->kind == IR_FOR) ix_walk(ctx, s->lo, is_read, &r), ix_walk(ctx, s->hi, is_read, &r);
  if (s->kind == IR_STORE) {
    r.any |= s->buf == b;
    for (int i = 0; i < s->buf->rank; i++) ix_walk(ctx, s->index[i], is_read, &r);
  }
  for (int i = 0; i < s->n && !r.any; i++) r.any = touched(ctx, s->items[i], but, b);
  return r.any || touched(ctx, s->body, but, b) || touched(ctx, s->other, but, b);
}

/* Which loops around the use wait for the first of their iterations, and whether that one makes all that the others use. */
static bool find_first(filling *f, const part *p) {
  tn_ctx *ctx = f->s->ctx;
  f->first = ix_bool(ctx, true);
  for (int i = 1; i < f->npath; i++) {
    const ir_stmt *s = f->path[i];
    if (s->kind == IR_LET) return refuse(f->s, "a value is named between the copy and its use");
    if (s->kind != IR_FOR) continue;
    if (s->loop == IR_VECTOR || s->loop == IR_PARALLEL) return refuse(f->s, "'%s' is not serial", s->var->name);
    bool used = false;
    for (int d = 0; d < p->rank; d++) used |= ix_uses_var(p->start[d], s->var);
    if (used || i >= f->nw) continue; /* what lies within w is whole in each of its iterations */
    f->waits[i] = true;
    f->first = ix_and(ctx, f->first, ix_eq(ctx, s->var->expr, s->lo));
  }
  for (int i = 1; i < f->npath; i++) {
    const ir_stmt *s = f->path[i];
    for (int j = 1; j < i; j++) {
      if (!f->waits[j]) continue;
      const ir_var *v = f->path[j]->var;
      bool differs = s->kind == IR_FOR && (ix_uses_var(s->lo, v) || ix_uses_var(s->hi, v));
      if (s->kind == IR_IF && ix_uses_var(s->value, v)) { /* certain the first time: then the others may well do less */
        ix there = ix_subst1(ctx, s->value, v, f->path[j]->lo);
        differs = f->path[i + 1] != s->body || !ix_is_int(there, 1);
      }
      if (differs) return refuse(f->s, "what is used depends on '%s'", v->name);
    }
    if (s->kind == IR_IF && s->value->loads) return refuse(f->s, "data decide what is used");
  }
  return true;
}

static ix moved(const filling *f, ix e, const ix *to) {
  for (int d = 0; d < f->copy->rank; d++)
    if (f->at[d]) e = ix_subst1(f->s->ctx, e, f->at[d], to[d]);
  return e;
}

static ix from_origin(void *user, ix load) {
  const filling *f = user;
  return load->u.buf == f->copy ? moved(f, f->value, load->args) : NULL;
}
static ix origin_expr(ir_rewriter *r, ix e) { return ix_subst_loads(r->ctx, e, from_origin, r->user); }

/* Under a guard of the whole body that is the same each time, so that the guard still bounds the loop. */
static const ir_stmt *fill_inside(const filling *f, const ir_stmt *copy, const ir_stmt *body) {
  bool same = body->kind == IR_IF && !body->other && !body->value->loads;
  for (int i = 1; i < f->npath && same; i++) same = !f->waits[i] || !ix_uses_var(body->value, f->path[i]->var);
  if (same) return ir_if(f->s->ctx, body->value, fill_inside(f, copy, body->body), NULL);
  return ir_seq(f->s->ctx, 2, (const ir_stmt *[]){copy, body});
}

/* An iteration of k that makes its part of the copy, and reads what it copies. */
static const ir_stmt *fill_step(filling *f, const ir_stmt *k) {
  tn_ctx *ctx = f->s->ctx;
  part p = {.ctx = ctx, .buf = f->copy};
  ir_var *v[IR_MAX_RANK] = {NULL};
  ix at[IR_MAX_RANK], inside = ix_bool(ctx, true);
  find_part(&p, k);
  for (int d = 0; d < p.rank; d++) {
    int64_t n = p.hi[d] - p.lo[d] + 1;
    at[d] = ix_addi(ctx, p.start[d], p.lo[d]);
    if (n > 1) {
      v[d] = ir_var_new(ctx, ir_format(ctx, "%s.%d", f->s->arg[3], d), TN_INDEX, 0, n - 1);
      v[d]->independent = true;
      at[d] = ix_add(ctx, at[d], v[d]->expr);
    }
    inside = ix_and(ctx, inside, ix_within(ctx, at[d], ix_index(ctx, 0), p.shape[d])); /* guards may keep the use from the rest */
  }
  const ir_stmt *copy = ir_if(ctx, ix_and(ctx, inside, moved(f, f->inside, at)), ir_store(ctx, f->copy, at, IR_SET, moved(f, f->value, at)), NULL);
  for (int d = p.rank; d-- > 0;)
    if (v[d]) copy = ir_for(ctx, v[d], ix_index(ctx, 0), ix_index(ctx, p.hi[d] - p.lo[d] + 1), IR_SERIAL, copy);
  ir_rewriter r = {.ctx = ctx, .user = f, .expr = origin_expr};
  return ir_for(ctx, k->var, k->lo, k->hi, k->loop, fill_inside(f, copy, ir_rewrite(&r, k->body)));
}

typedef struct step_in {
  ir_rewriter r;
  filling *f;
  const ir_stmt *k;
} step_in;
static const ir_stmt *fill_visit(ir_rewriter *r, const ir_stmt *s) {
  step_in *in = (step_in *)r;
  return s == in->k ? fill_step(in->f, s) : s;
}

/* s with the use in two versions; loops that wait keep their order from now on. */
static const ir_stmt *fill_path(filling *f, const ir_stmt *s, int i) {
  tn_ctx *ctx = f->s->ctx;
  if (i >= f->npath || s != f->path[i]) return s;
  if (s == f->w) {
    const char *ending = sched_free_ending(f->s, ".f");
    const ir_stmt *first = ir_stmt_fresh(ctx, s->body, ending);
    step_in in = {.r = {.ctx = ctx, .stmt = fill_visit}, .f = f, .k = ir_find_loop(first, ir_format(ctx, "%s%s", f->k->var->name, ending))};
    const ir_stmt *both = ir_if(ctx, f->first, ir_rewrite(&in.r, first), s->body);
    s = ir_for(ctx, s->var, s->lo, s->hi, s->loop, both);
  } else {
    switch (s->kind) {
    case IR_FOR: s = ir_for(ctx, s->var, s->lo, s->hi, s->loop, fill_path(f, s->body, i + 1)); break;
    case IR_ALLOC: s = ir_alloc_stmt(ctx, s->buf, fill_path(f, s->body, i + 1)); break;
    case IR_IF: s = ir_if(ctx, s->value, fill_path(f, s->body, i + 1), fill_path(f, s->other, i + 1)); break;
    case IR_TILE: s = ir_tile(ctx, s->atom, fill_path(f, s->body, i + 1)); break;
    case IR_SEQ: {
      const ir_stmt **items = IR_NEW_ARRAY(ctx, const ir_stmt *, s->n);
      for (int j = 0; j < s->n; j++) items[j] = fill_path(f, s->items[j], i + 1);
      s = ir_seq(ctx, s->n, items);
      break;
    }
    default: break;
    }
  }
  if (!f->waits[i] || !s->var->independent) return s;
  ir_var *v = sched_var(f->s, s->var->name, s->lo, s->hi);
  return ir_for(ctx, v, s->lo, s->hi, s->loop, ir_subst_var(ctx, s->body, s->var, v->expr));
}

static const ir_stmt *fill_visit_home(ir_rewriter *r, const ir_stmt *s) {
  filling *f = ((step_in *)r)->f;
  if (s != f->home) return s;
  return ir_alloc_stmt(r->ctx, f->copy, fill_path(f, f->use, 1));
}

bool sched_fill(sched *s) {
  tn_ctx *ctx = s->ctx;
  filling f = {.s = s};
  if (!(f.w = sched_loop(s, s->arg[1])) || !(f.k = sched_loop(s, s->arg[2]))) return false;
  if (!find_home(&f, s->k->body, s->arg[0])) return refuse(s, "there is no copy '%s'", s->arg[0]);
  if (f.home->body->kind != IR_SEQ || f.home->body->n < 2 || !read_copying(&f, f.home->body->items[0])) return refuse(s, "the loops that copy '%s' are not as they were made", s->arg[0]);
  f.use = ir_seq(ctx, f.home->body->n - 1, f.home->body->items + 1);
  f.path[f.npath++] = f.home;
  if (!find_use(&f, f.use) || !f.nw || f.w == f.k) return refuse(s, "'%s' within '%s' is not where '%s' is used", s->arg[2], s->arg[1], s->arg[0]);
  if (touched(ctx, f.use, f.k, f.copy)) return refuse(s, "'%s' is used outside of '%s', too", s->arg[0], s->arg[2]);
  part p = {.ctx = ctx, .buf = f.copy};
  find_part(&p, f.k);
  if (p.why) return refuse(s, "%s", p.why);
  for (int d = 0; d < p.rank; d++)
    if (!sched_new_name(s, ir_format(ctx, "%s.%d", s->arg[3], d))) return false;
  if (!find_first(&f, &p)) return false;
  step_in in = {.r = {.ctx = ctx, .stmt = fill_visit_home}, .f = &f};
  s->k->body = ir_rewrite(&in.r, s->k->body);
  return true;
}

/* ---- prefetch B v D w -> p ---- */

enum { LINE = 64 };

typedef struct ahead {
  part p;
  const ir_stmt *v, *w;
  const ir_stmt *path[16]; /* the loops inside v down to w */
  int npath;
  int64_t turns[16], all;  /* iterations, at most; their product */
} ahead;

/* The loops around w in s, outermost first. */
static bool find_path(ahead *a, const ir_stmt *s) {
  if (!s) return false;
  bool loop = s->kind == IR_FOR;
  if (loop) {
    if (a->npath == IR_COUNT(a->path)) return false;
    a->path[a->npath++] = s;
  }
  if (s == a->w) return true;
  for (int i = 0; i < s->n; i++)
    if (find_path(a, s->items[i])) return true;
  if (find_path(a, s->body) || find_path(a, s->other)) return true;
  a->npath -= loop;
  return false;
}

/* How often w's body runs in an iteration of v, at most; 0: not known. */
static void count_turns(ahead *a) {
  a->all = 1;
  for (int i = 0; i < a->npath; i++) {
    int64_t lo;
    const ir_stmt *l = a->path[i];
    if (!ix_const_value(l->lo, &lo) || l->hi->hi == INT64_MAX || !ir_mul_size(a->all, a->turns[i] = l->hi->hi - lo, &a->all)) a->all = 0;
  }
}

/* How the lines of a box are counted: `step` elements of an axis at a time, axes by stride, the largest first.
 * A line runs along the axis of unit stride and, where blocks of that are shorter than a line, along the one
 * that continues it: two pixels of eight channels. */
typedef struct lines {
  int64_t step[IR_MAX_RANK], count[IR_MAX_RANK], total;
  int order[IR_MAX_RANK];
} lines;

static int64_t offset_along(const part *p, int d, int64_t n) {
  ix at[IR_MAX_RANK];
  int64_t offset = INT64_MAX;
  for (int e = 0; e < p->buf->rank; e++) at[e] = ix_index(p->ctx, e == d ? n : 0);
  ix_const_value(ir_buf_offset(p->ctx, p->buf, at), &offset);
  return offset;
}

/* Elements of axis d, a power of two up to `most`, that lie `stride` apart. */
static int64_t run_along(const part *p, int d, int64_t stride, int64_t most) {
  int64_t n = 1;
  while (2 * n <= most && offset_along(p, d, n) == n * stride && offset_along(p, d, 2 * n - 1) == (2 * n - 1) * stride) n *= 2;
  return n;
}

static bool find_lines(const part *p, const int64_t *size, lines *l) {
  const ir_buf *b = p->buf;
  int64_t per_line = LINE / (int64_t)ir_dtype_bytes(b->dtype), covered = 1, all = 1, stride[IR_MAX_RANK];
  for (int d = 0; d < b->rank; d++) l->step[d] = 1, all *= size[d] > 1 ? 2 : 1;
  for (int turn = 0; turn < 2 && covered < per_line; turn++) {
    int64_t before = covered;
    for (int d = b->rank; d-- > 0 && covered == before;) {
      if (l->step[d] > 1 || size[d] < 2) continue;
      l->step[d] = run_along(p, d, covered, per_line / covered);
      covered *= l->step[d];
    }
  }
  l->total = 1;
  for (int d = 0; d < b->rank; d++) {
    l->count[d] = (size[d] + l->step[d] - 1) / l->step[d];
    stride[d] = l->count[d] > 1 ? offset_along(p, d, l->step[d]) : 0;
    if (!ir_mul_size(l->total, l->count[d], &l->total)) l->total = INT64_MAX;
    int i = d;
    for (; i > 0 && stride[l->order[i - 1]] < stride[d]; i--) l->order[i] = l->order[i - 1];
    l->order[i] = d;
  }
  return covered > 1 || all == 1;
}

/* Line `at` of the box as a load into a register nobody reads. */
static const ir_stmt *touch_line(ahead *a, ix at, const lines *l, const ix *start) {
  tn_ctx *ctx = a->p.ctx;
  const ir_buf *b = a->p.buf;
  ix index[IR_MAX_RANK], inside = ix_bool(ctx, true);
  for (int i = b->rank; i-- > 0;) {
    int d = l->order[i];
    ix x = l->count[d] == 1 ? ix_index(ctx, 0) : i ? ix_remi(ctx, at, l->count[d]) : at;
    if (i) at = ix_divi(ctx, at, l->count[d]);
    index[d] = ix_add(ctx, start[d], ix_muli(ctx, x, l->step[d]));
    ix there = ix_within(ctx, index[d], ix_index(ctx, 0), b->shape[d]);
    if (a->p.written || b->shape[d]->lo < 1) inside = ix_and(ctx, inside, there);
    else if (!ix_is_int(there, 1)) index[d] = ix_max(ctx, ix_min(ctx, index[d], ix_addi(ctx, b->shape[d], -1)), ix_index(ctx, 0));
  }
  ir_buf *none = ir_buf_new(ctx, ir_format(ctx, "%s.ahead", b->name), b->dtype, 0, NULL, NULL, IR_REGISTER);
  const ir_stmt *touch = ir_store(ctx, none, NULL, IR_SET, ix_load(ctx, a->p.buf, index));
  return ir_if(ctx, inside, ir_alloc_stmt(ctx, none, ir_tile(ctx, a->p.written ? "prefetch" : "prefetch.l2", touch)), NULL);
}

static const ir_stmt *do_prefetch(sched *s, const ir_stmt *w, void *user) {
  tn_ctx *ctx = s->ctx;
  ahead *a = user;
  part *p = &a->p;
  int64_t size[IR_MAX_RANK];
  lines l;
  find_part(p, a->v);
  box_of(p, size);
  if (p->why) {
    refuse(s, "%s", p->why);
    return NULL;
  }
  /* what is not there is, of what is read, the last line again: among the steps of a tile a branch costs more than a hint */
  ix later = ix_add(ctx, a->v->var->expr, ix_index(ctx, s->num[2])), start[IR_MAX_RANK], exists = ix_lt(ctx, later, a->v->hi);
  if (!p->written) later = ix_min(ctx, later, ix_addi(ctx, a->v->hi, -1));
  for (int d = 0; d < p->buf->rank; d++) start[d] = ix_subst1(ctx, ix_addi(ctx, p->start[d], p->lo[d]), a->v->var, later);
  if (!find_lines(p, size, &l)) {
    refuse(s, "no axis of the part is contiguous");
    return NULL;
  }
  count_turns(a);
  if (a->all < 1) {
    refuse(s, "how often '%s' runs inside '%s' is not known", s->arg[3], s->arg[1]);
    return NULL;
  }
  int64_t each = (l.total + a->all - 1) / a->all;
  if (each > (p->written ? MAX_WRITTEN : MAX_LINES)) { /* a tile's results are few: rows that are no box, as those of a batch joined, are not known */
    refuse(s, "%lld lines in an iteration are too many", (long long)each);
    return NULL;
  }
  ir_var *i = ir_var_new(ctx, s->arg[4], TN_INDEX, 0, each - 1);
  ix at = ix_index(ctx, 0);
  for (int j = 0; j < a->npath; j++) at = ix_add(ctx, ix_muli(ctx, at, a->turns[j]), ix_sub(ctx, a->path[j]->var->expr, a->path[j]->lo));
  at = ix_add(ctx, ix_muli(ctx, at, each), i->expr);
  bool some = each * a->all > l.total;
  const ir_stmt *body = touch_line(a, some && !p->written ? ix_min(ctx, at, ix_index(ctx, l.total - 1)) : at, &l, start);
  if (some && p->written) body = ir_if(ctx, ix_lt(ctx, at, ix_index(ctx, l.total)), body, NULL);
  body = ir_for(ctx, i, ix_index(ctx, 0), ix_index(ctx, each), each <= (p->written ? MAX_UNROLLED : MAX_UNROLLED_READ) ? IR_UNROLL : IR_SERIAL, body);
  if (p->when) body = ir_if(ctx, ix_subst1(ctx, p->when, a->v->var, later), body, NULL);
  if (p->written) body = ir_if(ctx, exists, body, NULL);
  return ir_for(ctx, w->var, w->lo, w->hi, w->loop, ir_seq(ctx, 2, (const ir_stmt *[]){body, w->body}));
}

bool sched_prefetch(sched *s) {
  ahead a = {.p = {.ctx = s->ctx, .buf = operand(s, s->arg[0]), .asked = true}};
  bool copy = !a.p.buf && (a.p.buf = find_copy(s->k->body, s->arg[0]));
  if (!(a.v = sched_loop(s, s->arg[1])) || !(a.w = sched_loop(s, s->arg[3]))) return false;
  if (!a.p.buf) return refuse(s, "there is no operand '%s'", s->arg[0]);
  if (!copy && a.p.buf->access != IR_IN && a.p.buf->access != IR_OUT) return refuse(s, "'%s' is read and written by the kernel", a.p.buf->name);
  a.p.written = a.p.buf->access == IR_OUT;
  if (copy && find_copy(a.v->body, s->arg[0])) return refuse(s, "'%s' is made inside '%s'", s->arg[0], s->arg[1]);
  if (a.w != a.v && !find_path(&a, a.v->body)) return refuse(s, "'%s' is not inside '%s'", s->arg[3], s->arg[1]);
  if (s->num[2] < 1 || s->num[2] > 1 << 16) return refuse(s, "%lld iterations ahead", (long long)s->num[2]);
  if (a.w->loop == IR_VECTOR || a.w->loop == IR_UNROLL) return refuse(s, "only serial and parallel loops hold a prefetch");
  return sched_new_name(s, s->arg[4]) && sched_replace(s, s->arg[3], do_prefetch, &a);
}
