/* sizes.c — programs for several sizes of a model, and their joining; see sizes.h. */
#include "lower/sizes.h"
#include "ir/text.h"
#include "lower/problem.h"
#include <string.h>

enum { MAX_PROGRAMS = 64, LARGE = 8 };

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

typedef struct variant { /* the program for one choice of sizes */
  const int64_t *sizes;  /* by dimension */
  ir_program *p;
  const char *meaning;   /* of its graph: ops, attributes and constants, without sizes */
  int nextents;          /* of all values in turn */
  int64_t *extents;
  bool *out;             /* outputs that are cut, of a batch */
  bool idle;             /* only there to show what depends on the batch: no run goes by it */
  /* its numbers in the joined program */
  int *kernel, *slot;
} variant;

typedef struct joiner {
  tn_ctx *ctx;
  const lw_options *o;
  int n;
  lw_dim *dims;
  int batch;             /* the range among them, -1: none */
  bool *in;              /* inputs that are cut */
  int nvariants;
  variant *v;
  ir_program *p;
  ir_var **var;          /* by dimension; null: fixed */
  ir_map kernels;        /* canonical text and schedule -> number + 1 */
  ir_map packed;         /* how packed contents come about -> offset in the weights + 1 */
} joiner;

lw_dim lw_dim_range(tn_ctx *ctx, const char *name, int64_t lo, int64_t hi) {
  lw_dim d = {.name = name, .lo = lo, .hi = hi, .range = hi > lo, .proposed = hi > lo};
  int64_t *sizes = NULL;
  IR_PUSH(ctx, sizes, d.n, lo);
  for (int64_t s = 1; s <= hi; s *= s < LARGE ? 2 : 4)
    if (s > lo) IR_PUSH(ctx, sizes, d.n, s);
  if (d.n == 1 && hi > lo) IR_PUSH(ctx, sizes, d.n, hi);
  d.sizes = sizes;
  return d;
}

/* ---- what a graph means, sizes aside ---- */

/* Operands that say nothing but a shape: what they do to elements shows in the kernels. */
static bool is_shape(const ir_node *n, int k) {
  static const char *const ops[] = {"Reshape", "Expand", "Tile", "Slice", "Split", "Pad", "Resize", "Upsample", "Range"};
  for (int i = 0; i < IR_COUNT(ops); i++)
    if (ir_node_is(n, ops[i])) return k > 0;
  return ir_node_is(n, "ConstantOfShape");
}

static const char *meaning_of(tn_ctx *ctx, const ir_graph *g, variant *into) {
  ir_text t = {.ctx = ctx};
  for (int i = 0; i < g->nnodes; i++) {
    const ir_node *n = g->nodes[i];
    if (n->dead) continue;
    ir_put(&t, "%s:%s", n->op->domain, n->op->name);
    for (int k = 0; k < n->nattrs; k++) {
      const ir_attr *a = &n->attrs[k];
      ir_put(&t, " %s %lld %a %s", a->name, (long long)a->i, a->f, a->s ? a->s : "");
      for (int j = 0; j < a->n && a->ints; j++) ir_put(&t, " %lld", (long long)a->ints[j]);
      for (int j = 0; j < a->n && a->floats; j++) ir_put(&t, " %a", a->floats[j]);
    }
    for (int k = 0; k < n->nin; k++) {
      const ir_value *v = n->in[k];
      if (v && v->data && v->data_bytes <= 1 << 16 && !is_shape(n, k)) /* larger ones are the model's own */
        ir_put(&t, " %llx", (unsigned long long)ir_data_hash(v->data, v->data_bytes));
    }
    for (int k = 0; k < n->nout; k++) {
      const ir_value *v = n->out[k];
      ir_put(&t, " : %d", v ? v->rank : -1);
      for (int a = 0; v && a < v->rank; a++) IR_PUSH(ctx, into->extents, into->nextents, ir_dim(ctx, v, a));
      IR_PUSH(ctx, into->extents, into->nextents, -1);
    }
    ir_put(&t, "\n");
  }
  return ir_text_str(&t);
}

typedef struct watch {
  const lw_options *o;
  variant *v;
} watch;

static void after_pass(void *user, tn_ctx *ctx, const char *pass, const ir_graph *g, double seconds) {
  watch *w = user;
  if (!w->v->meaning && strcmp(pass, "dce") == 0) w->v->meaning = meaning_of(ctx, g, w->v);
  if (w->o->after_pass) w->o->after_pass(w->o->after_user, ctx, pass, g, seconds);
}

/* ---- programs ---- */

static void compile(joiner *j, const ir_graph *g, variant *v) {
  tn_ctx *ctx = j->ctx;
  const char **names = IR_NEW_ARRAY(ctx, const char *, j->n + 1);
  for (int i = 0; i < j->n; i++) names[i] = j->dims[i].name;
  ir_graph *own = ir_graph_clone(ctx, g, NULL);
  lw_bind_dims(ctx, own, j->n, names, v->sizes);
  watch w = {j->o, v};
  lw_options o = *j->o;
  o.after_pass = after_pass;
  o.after_user = &w;
  v->p = lw_compile(ctx, own, &o);
}

/* Cycles of a run, to tell which pieces are cheap: multiplications at a vector each, operands at 4 bytes. */
static double cycles(joiner *j, const ir_program *p) {
  double sum = 0, rate = 4 * (j->o->target ? cg_target_lanes(j->o->target, TN_F32) : 8);
  for (int i = 0; i < p->nrun; i++) {
    if (p->run[i].kind != IR_CALL) continue;
    lw_problem q = lw_problem_of(j->ctx, p->kernels[p->run[i].kernel].kernel);
    double compute = q.flops / rate, memory = q.bytes / 4;
    sum += 300 + (compute > memory ? compute : memory);
  }
  return sum;
}

/* Whether program c, for a size of the batch whose programs begin with `first`, gains anything over pieces of smaller ones. */
static bool gains(joiner *j, int first, int c) {
  const lw_dim *d = &j->dims[j->batch];
  double whole = cycles(j, j->v[c].p);
  int64_t size = d->sizes[c - first];
  for (int i = 0; first + i < c; i++)
    if (whole > 0.97 * cycles(j, j->v[first + i].p) * (double)((size + d->sizes[i] - 1) / d->sizes[i])) return false;
  return true;
}

static int64_t choices(const joiner *j) {
  int64_t total = 1;
  for (int i = 0; i < j->n; i++)
    if ((total *= j->dims[i].n) > MAX_PROGRAMS) ir_fail(j->ctx, TN_EUSAGE, "sizes: more than %d programs, one for each choice", MAX_PROGRAMS);
  return total;
}

/* Every choice of sizes, the batch's fastest. */
static void make_variants(joiner *j, const ir_graph *g) {
  tn_ctx *ctx = j->ctx;
  lw_dim *batch = j->batch >= 0 ? &j->dims[j->batch] : NULL;
  j->v = IR_NEW_ARRAY(ctx, variant, choices(j));
  for (int c = 0; c < choices(j); c++) {
    int64_t *sizes = IR_NEW_ARRAY(ctx, int64_t, j->n + 1), left = c;
    for (int step = -1; step < j->n; step++) { /* the batch first */
      int i = step < 0 ? j->batch : step;
      if (i < 0 || (step >= 0 && i == j->batch)) continue;
      sizes[i] = j->dims[i].sizes[left % j->dims[i].n];
      left /= j->dims[i].n;
    }
    j->v[c] = (variant){.sizes = sizes};
    compile(j, g, &j->v[c]);
    if (batch && batch->proposed && c >= 2 && c < batch->n && !gains(j, 0, c)) batch->n = c--; /* nor would larger ones */
    j->nvariants = c + 1;
    if (batch && batch->proposed && c % batch->n == 1) j->v[c].idle = !gains(j, c - c % batch->n, c);
  }
}

/* ---- a batch ---- */

static void find_cut_inputs(joiner *j, const ir_graph *g) {
  const char *name = j->dims[j->batch].name;
  j->in = IR_NEW_ARRAY(j->ctx, bool, g->ninputs + 1);
  for (int i = 0; i < g->ninputs; i++) {
    const ir_value *v = g->inputs[i];
    bool leading = true;
    for (int a = 0; a < v->rank; a++) {
      bool is = v->dims[a]->op == IX_VAR && strcmp(v->dims[a]->u.var->name, name) == 0;
      if (is && !leading) ir_fail(j->ctx, TN_EUSAGE, "'%s' cannot be a range: it is not the first axis of input '%s'; a list of sizes, as 1,8,32, can be compiled", name, v->name);
      j->in[i] |= is;
      leading &= ix_is_int(v->dims[a], 1);
    }
  }
}

/* Each value has the same shape for both, or is cut: what is m times as long is its first axis that is not 1. So a
 * part has the same shapes in a batch of m as in one of n, and with the same ops and constants it means the same. */
static bool shapes_scale(const variant *a, int64_t m, const variant *b, int64_t n) {
  bool leading = true, cut = false;
  if (a->nextents != b->nextents) return false;
  for (int i = 0; i < a->nextents; i++) {
    int64_t x = a->extents[i], y = b->extents[i];
    if (x == -1 || y == -1) {
      if (x != y) return false;
      leading = true, cut = false;
      continue;
    }
    if (x != y && (!leading || cut || x * n != y * m)) return false;
    cut |= x != y;
    leading &= (x == 1 && y == 1) || x != y;
  }
  return true;
}

static void prove(joiner *j) {
  tn_ctx *ctx = j->ctx;
  const lw_dim *d = &j->dims[j->batch];
  static const char *const otherwise = "a list of sizes, as 1,8,32, can be compiled";
  for (int c = j->nvariants; c-- > 0;) { /* the largest of each batch first */
    variant *v = &j->v[c], *other = &j->v[c - c % d->n + d->n - 1];
    int64_t parts = v->sizes[j->batch];
    v->out = IR_NEW_ARRAY(ctx, bool, v->p->noutputs + 1);
    if (strcmp(v->meaning, other->meaning) || !shapes_scale(v, parts, other, other->sizes[j->batch])) ir_fail(ctx, TN_EUSAGE, "'%s' cannot be a range: the model computes something else for %lld than for %lld; %s", d->name, (long long)parts, (long long)d->sizes[d->n - 1], otherwise);
    const char *why = parts > 1 ? lw_parts_refusal(ctx, v->p, parts, j->in, v->out) : NULL;
    if (parts == 1) memcpy(v->out, other->out, (size_t)v->p->noutputs * sizeof *v->out);
    if (!why && memcmp(v->out, other->out, (size_t)v->p->noutputs * sizeof *v->out)) why = "which outputs depend on it differs by size";
    if (why) ir_fail(ctx, TN_EUSAGE, "'%s' cannot be a range, it is no batch: %s; %s", d->name, why, otherwise);
  }
}

/* counts[m][i]: how many pieces of size i a batch of m goes by; for m up to most. The last piece of each may reach
 * back over what is done, so sizes above m are none. */
static int **cover(joiner *j, const double *cost, int64_t most) {
  const lw_dim *d = &j->dims[j->batch];
  int **counts = IR_NEW_ARRAY(j->ctx, int *, most + 1);
  double *best = IR_NEW_ARRAY(j->ctx, double, most + 1);
  int *by = IR_NEW_ARRAY(j->ctx, int, most + 1);
  for (int64_t m = d->lo; m <= most; m++) {
    for (int64_t x = 1; x <= m; x++) { /* x are left */
      best[x] = 1e300;
      for (int i = 0; i < d->n && d->sizes[i] <= m; i++) {
        double c = cost[i] + (x > d->sizes[i] ? best[x - d->sizes[i]] : 0);
        if (c < best[x]) best[x] = c, by[x] = i;
      }
    }
    counts[m] = IR_NEW_ARRAY(j->ctx, int, d->n);
    for (int64_t x = m; x > 0; x -= d->sizes[by[x]]) counts[m][by[x]]++;
  }
  return counts;
}

/* A table of lo .. hi as an expression of m: ranges of equal values. */
static ix table(tn_ctx *ctx, ix m, int **counts, int column, int64_t lo, int64_t hi) {
  ix e = ix_index(ctx, counts[hi][column]);
  for (int64_t x = hi - 1; x >= lo; x--)
    if (counts[x][column] != counts[x + 1][column]) e = ix_select(ctx, ix_le(ctx, m, ix_index(ctx, x)), ix_index(ctx, counts[x][column]), e);
  return e;
}

/* ---- joining: kernels, constants ---- */

/* The kernel by another name: of several sizes each has its own. */
static const ir_kernel *renamed(tn_ctx *ctx, const ir_kernel *k, const char *name) {
  ir_kernel *copy = IR_NEW(ctx, ir_kernel);
  *copy = *k;
  copy->name = name;
  return copy;
}

static int kernel_of(joiner *j, const variant *v, const ir_program_kernel *k) {
  const char *key = ir_intern(j->ctx, ir_format(j->ctx, "%s\n%s", ir_kernel_canonical(j->ctx, k->kernel), k->schedule));
  intptr_t found = (intptr_t)ir_map_get(&j->kernels, key);
  if (found) return (int)found - 1;
  ir_text name = {.ctx = j->ctx};
  ir_put(&name, "%s", k->kernel->name);
  for (int i = 0; i < j->n; i++)
    if (j->var[i]) ir_put(&name, ".%s%lld", j->dims[i].name, (long long)v->sizes[i]);
  const char *own = ir_intern(j->ctx, ir_text_str(&name));
  ir_program_kernel copy = {renamed(j->ctx, k->kernel, own), k->schedule, NULL};
  copy.lowered = k->lowered == k->kernel ? copy.kernel : renamed(j->ctx, k->lowered, own);
  IR_PUSH(j->ctx, j->p->kernels, j->p->nkernels, copy);
  ir_map_set(&j->kernels, key, (void *)(intptr_t)j->p->nkernels);
  return j->p->nkernels - 1;
}

/* The number of an original tensor, by its bytes. */
static int raw_of(joiner *j, const ir_slot *s) {
  for (int i = 0; i < j->p->nslots; i++) {
    const ir_slot *t = &j->p->slots[i];
    if (t->kind != IR_SLOT_RAW || t->offset || t->bytes != s->bytes || t->dtype != s->dtype || strcmp(t->name, s->name)) continue;
    if (t->data == s->data || (t->data && s->data && memcmp(t->data, s->data, (size_t)s->bytes) == 0)) return t->index;
  }
  return j->p->nraw++;
}

typedef struct region { /* of a program's weights */
  int64_t offset, end, to; /* to: in the joined program; -1: not yet known */
  int writers;
} region;

typedef struct packer {
  joiner *j;
  const variant *v;
  int n;
  region *regions;
  int nkeys;
  struct { int64_t offset; const char *key; } *keys; /* of the pack section's arena: what lies there by now */
} packer;

static region *region_at(packer *k, int64_t offset) {
  for (int i = 0; i < k->n; i++)
    if (offset >= k->regions[i].offset && offset < k->regions[i].end) return &k->regions[i];
  return NULL;
}

/* Weights that overlap are one region. */
static void find_regions(packer *k) {
  const ir_program *p = k->v->p;
  for (int i = 0; i < p->nslots; i++) {
    const ir_slot *s = &p->slots[i];
    if (s->kind != IR_SLOT_WEIGHTS || !s->bytes) continue;
    region r = {s->offset, s->offset + s->bytes, -1, 0};
    int n = 0;
    for (int m = 0; m < k->n; m++) {
      region *t = &k->regions[m];
      if (t->offset < r.end && r.offset < t->end) {
        if (t->offset < r.offset) r.offset = t->offset;
        if (t->end > r.end) r.end = t->end;
      } else k->regions[n++] = *t;
    }
    k->n = n;
    IR_PUSH(k->j->ctx, k->regions, k->n, r);
  }
}

static int64_t place(joiner *j, int64_t bytes) {
  int64_t at = j->p->weights_bytes;
  if (!ir_add_size(at, (bytes + 63) & ~(int64_t)63, &j->p->weights_bytes)) ir_fail(j->ctx, TN_EINPUT, "the weights' size overflows");
  return at;
}

static bool is_stored(const packer *k, const ir_inst *c, int i) {
  if (c->kind == IR_COPY_SLOT) return i == 0;
  return (k->v->p->kernels[c->kernel].kernel->bufs[i]->access & IR_OUT) != 0;
}

/* How what a slot holds came about, as a text that is the same in all programs. */
static const char *origin(packer *k, const ir_slot *s) {
  tn_ctx *ctx = k->j->ctx;
  if (s->kind == IR_SLOT_RAW) return ir_format(ctx, "raw %d + %lld", k->j->p->slots[k->v->slot[s - k->v->p->slots]].index, (long long)s->offset);
  if (s->kind == IR_SLOT_WEIGHTS && s->bytes) {
    const region *r = region_at(k, s->offset);
    return ir_format(ctx, "weights %lld", (long long)(r->to + s->offset - r->offset));
  }
  for (int i = k->nkeys; i-- > 0 && s->kind == IR_SLOT_ARENA;)
    if (k->keys[i].offset == s->offset) return k->keys[i].key;
  return "nothing";
}

/* Weights of which one instruction makes all are there once, however many programs make them. */
static void join_pack(joiner *j, const variant *v) {
  tn_ctx *ctx = j->ctx;
  packer k = {.j = j, .v = v};
  find_regions(&k);
  for (int i = 0; i < v->p->npack; i++)
    for (int a = 0; a < v->p->pack[i].nargs; a++) {
      const ir_slot *s = &v->p->slots[v->p->pack[i].args[a]];
      if (s->kind == IR_SLOT_WEIGHTS && s->bytes && is_stored(&k, &v->p->pack[i], a)) region_at(&k, s->offset)->writers++;
    }
  for (int i = 0; i < v->p->npack; i++) {
    ir_inst c = v->p->pack[i];
    ir_text key = {.ctx = ctx};
    ir_put(&key, c.kind == IR_CALL ? "call %d" : "copy", c.kind == IR_CALL ? v->kernel[c.kernel] : 0);
    for (int a = 0; a < c.nargs; a++)
      if (!is_stored(&k, &c, a) || (c.kind == IR_CALL && (v->p->kernels[c.kernel].kernel->bufs[a]->access & IR_IN))) ir_put(&key, ", %s", origin(&k, &v->p->slots[c.args[a]]));
    bool known = true;
    for (int a = 0; a < c.nargs; a++) {
      const ir_slot *s = &v->p->slots[c.args[a]];
      if (!is_stored(&k, &c, a)) continue;
      const char *what = ir_intern(ctx, ir_format(ctx, "%s -> %d, %lld bytes", ir_text_str(&key), a, (long long)s->bytes));
      region *r = s->kind == IR_SLOT_WEIGHTS && s->bytes ? region_at(&k, s->offset) : NULL;
      bool whole = r && r->writers == 1 && r->offset == s->offset && r->end == s->offset + s->bytes;
      intptr_t there = whole ? (intptr_t)ir_map_get(&j->packed, what) : 0;
      known &= there != 0;
      if (there) r->to = there - 1;
      else if (r && r->to < 0) r->to = place(j, r->end - r->offset);
      if (whole && !there) ir_map_set(&j->packed, what, (void *)(intptr_t)(r->to + 1));
      if (s->kind != IR_SLOT_ARENA) continue;
      IR_PUSH(ctx, k.keys, k.nkeys, ((__typeof__(*k.keys)){s->offset, what}));
    }
    if (known && c.nargs) continue;
    if (c.kind == IR_CALL) c.kernel = v->kernel[c.kernel];
    c.args = IR_NEW_ARRAY(ctx, int, c.nargs + 1);
    for (int a = 0; a < c.nargs; a++) c.args[a] = v->slot[v->p->pack[i].args[a]];
    IR_PUSH(ctx, j->p->pack, j->p->npack, c);
  }
  for (int i = 0; i < v->p->nslots; i++) {
    const ir_slot *s = &v->p->slots[i];
    const region *r = s->kind == IR_SLOT_WEIGHTS && s->bytes ? region_at(&k, s->offset) : NULL;
    if (r) j->p->slots[v->slot[i]].offset = (r->to < 0 ? 0 : r->to) + s->offset - r->offset;
  }
}

static void join_slots(joiner *j, variant *v) {
  v->slot = IR_NEW_ARRAY(j->ctx, int, v->p->nslots + 1);
  int *raw = IR_NEW_ARRAY(j->ctx, int, v->p->nraw + 1);
  for (int i = 0; i < v->p->nslots; i++) {
    ir_slot s = v->p->slots[i];
    if (s.kind == IR_SLOT_RAW) s.index = s.offset ? raw[s.index] : (raw[s.index] = raw_of(j, &s)); /* the whole stands before its views */
    bool cut = j->batch >= 0 && ((s.kind == IR_SLOT_INPUT && j->in[s.index]) || (s.kind == IR_SLOT_OUTPUT && v->out[s.index]));
    if (cut) s.step = s.bytes / v->sizes[j->batch];
    v->slot[i] = j->p->nslots;
    IR_PUSH(j->ctx, j->p->slots, j->p->nslots, s);
  }
}

/* ---- joining: what runs ---- */

static int64_t extent_of(const variant *v, ir_slot_kind kind, int index, int axis) {
  for (int i = 0; i < v->p->nslots; i++)
    if (v->p->slots[i].kind == kind && v->p->slots[i].index == index && !v->p->slots[i].offset) return v->p->slots[i].dims[axis];
  return 0;
}

/* An extent by the sizes: a number, or c0 + c1 times the product of some of them. */
static ix fit(joiner *j, ir_slot_kind kind, int index, int axis, const char *name) {
  tn_ctx *ctx = j->ctx;
  for (int set = 0; set < 1 << (j->n < 8 ? j->n : 8); set++) {
    int64_t x0 = 0, y0 = 0, c0 = 0, c1 = 0;
    bool fits = true;
    for (int c = 0; c < j->nvariants && fits; c++) {
      int64_t x = 1, y = extent_of(&j->v[c], kind, index, axis);
      for (int i = 0; i < j->n; i++)
        if (set >> i & 1) x *= j->v[c].sizes[i];
      if (c == 0) x0 = x, y0 = y, c1 = x && set && y % x == 0 ? y / x : 0, c0 = y - c1 * x; /* a multiple, until another says more */
      else if (y != c0 + c1 * x) {
        fits = x != x0 && (y - y0) % (x - x0) == 0;
        if (fits) c1 = (y - y0) / (x - x0), c0 = y0 - c1 * x0;
        for (int b = 0; b < c && fits; b++) {
          int64_t z = 1;
          for (int i = 0; i < j->n; i++)
            if (set >> i & 1) z *= j->v[b].sizes[i];
          fits = extent_of(&j->v[b], kind, index, axis) == c0 + c1 * z;
        }
      }
    }
    if (!fits) continue;
    ix e = ix_index(ctx, c1);
    for (int i = 0; i < j->n; i++)
      if (set >> i & 1) e = ix_mul(ctx, e, j->var[i] ? j->var[i]->expr : ix_index(ctx, j->dims[i].lo));
    return ix_addi(ctx, e, c0);
  }
  ir_fail(ctx, TN_EUNSUPPORTED, "'%s': its extent %d is no simple function of the sizes", name, axis);
}

/* Inputs and outputs as the caller sees them. */
static void join_faces(joiner *j) {
  for (int kind = 0; kind < 2; kind++) {
    ir_slot_kind k = kind ? IR_SLOT_OUTPUT : IR_SLOT_INPUT;
    const ir_program *p = j->v[0].p;
    for (int n = 0; n < (kind ? p->noutputs : p->ninputs); n++) {
      const ir_slot *s = NULL;
      for (int i = 0; i < p->nslots && !s; i++)
        if (p->slots[i].kind == k && p->slots[i].index == n && !p->slots[i].offset) s = &p->slots[i];
      ir_slot face = *s;
      ix *sizes = IR_NEW_ARRAY(j->ctx, ix, s->rank + 1);
      face.bytes = (int64_t)ir_dtype_bytes(s->dtype);
      for (int a = 0; a < s->rank; a++) {
        if (s->sizes && ir_extent_slot(p, s->sizes[a]) >= 0) ir_fail(j->ctx, TN_EUNSUPPORTED, "models of several sizes with an output ('%s') of which a run finds how long it is", s->name);
        sizes[a] = fit(j, k, n, a, s->name);
        face.dims[a] = sizes[a]->hi;
        if (!ir_mul_size(face.bytes, face.dims[a], &face.bytes)) ir_fail(j->ctx, TN_EINPUT, "'%s': its size overflows", s->name);
      }
      face.sizes = sizes;
      face.layout = NULL;
      IR_PUSH(j->ctx, j->p->slots, j->p->nslots, face);
    }
  }
}

/* Instructions with their numbers in the joined program. What they read by name has names of its own in each (region.c). */
static ir_inst *own_insts(joiner *j, const variant *v, int n, const ir_inst *insts, int before) {
  ir_inst *own = IR_NEW_ARRAY(j->ctx, ir_inst, n + before + 1);
  for (int i = 0; i < n; i++) {
    ir_inst c = insts[i];
    if (c.kind != IR_CALL && c.kind != IR_COPY_SLOT && j->batch >= 0)
      ir_fail(j->ctx, TN_EUNSUPPORTED, "'%s' cannot be a range: the model has loops or branches; a list of sizes, as 1,8,32, can be compiled", j->dims[j->batch].name);
    if (c.kind == IR_CALL) c.kernel = v->kernel[c.kernel];
    c.args = IR_NEW_ARRAY(j->ctx, int, c.nargs + 1);
    for (int a = 0; a < c.nargs; a++) c.args[a] = v->slot[insts[i].args[a]];
    c.body = own_insts(j, v, c.nbody, insts[i].body, 0);
    c.other = own_insts(j, v, c.nother, insts[i].other, 0);
    own[before + i] = c;
  }
  return own;
}

static ir_inst *own_run(joiner *j, const variant *v, int before, const ir_inst *first) {
  ir_inst *run = own_insts(j, v, v->p->nrun, v->p->run, before);
  if (before) run[0] = *first;
  return run;
}

/* The pieces of a batch, largest first: for each size a loop over its pieces. */
static int batch_run(joiner *j, const variant *v, ir_inst **out) {
  tn_ctx *ctx = j->ctx;
  const lw_dim *d = &j->dims[j->batch];
  double *cost = IR_NEW_ARRAY(ctx, double, d->n);
  for (int i = 0; i < d->n; i++) cost[i] = v[i].idle ? 1e200 : cycles(j, v[i].p);
  int last = v[d->n - 1].idle ? d->n - 2 : d->n - 1;
  int64_t large = d->sizes[last], most = d->hi < 2 * large - 1 ? d->hi : 2 * large - 1;
  int **counts = cover(j, cost, most);
  /* of more than that, the largest pieces first until less is left */
  ix all = j->var[j->batch]->expr, rest = all, full = ix_index(ctx, 0), done = ix_index(ctx, 0);
  if (d->hi > most) {
    rest = ix_select(ctx, ix_le(ctx, all, ix_index(ctx, most)), all, ix_addi(ctx, ix_remi(ctx, all, large), large));
    full = ix_max(ctx, ix_index(ctx, 0), ix_addi(ctx, ix_divi(ctx, all, large), -1));
  }
  int n = 0;
  for (int i = d->n; i-- > 0;) {
    ix count = table(ctx, rest, counts, i, d->lo, most);
    if (i == last) count = ix_add(ctx, count, full);
    if (v[i].idle || ix_is_int(count, 0)) continue;
    ir_inst loop = {.kind = IR_INST_FOR, .value = count, .var = ir_var_new(ctx, "piece", TN_INDEX, 0, count->hi > 0 ? count->hi - 1 : 0)};
    ix at = ix_min(ctx, ix_add(ctx, done, ix_muli(ctx, loop.var->expr, d->sizes[i])), ix_addi(ctx, all, -d->sizes[i]));
    ir_inst first = {.kind = IR_INST_LET, .value = ix_max(ctx, at, ix_index(ctx, 0))};
    first.var = ir_var_new(ctx, "first", TN_INDEX, first.value->lo, first.value->hi);
    loop.body = own_run(j, &v[i], 1, &first);
    loop.nbody = v[i].p->nrun + 1;
    IR_PUSH(ctx, *out, n, loop);
    done = ix_add(ctx, done, ix_muli(ctx, count, d->sizes[i]));
  }
  return n;
}

/* The programs of variants from `at` on, one after another asked for by its sizes. */
static int choose(joiner *j, int at, ir_inst **out) {
  int group = j->batch >= 0 ? j->dims[j->batch].n : 1, n;
  const variant *v = &j->v[at];
  if (j->batch >= 0) n = batch_run(j, v, out);
  else n = v->p->nrun, *out = own_run(j, v, 0, NULL);
  if (at + group >= j->nvariants) return n; /* all others were asked for */
  ix cond = NULL;
  for (int i = 0; i < j->n; i++) {
    if (i == j->batch || !j->var[i]) continue;
    ix is = ix_eq(j->ctx, j->var[i]->expr, ix_index(j->ctx, v->sizes[i]));
    cond = cond ? ix_and(j->ctx, cond, is) : is;
  }
  ir_inst c = {.kind = IR_INST_IF, .value = cond, .body = *out, .nbody = n};
  c.nother = choose(j, at + group, &c.other);
  *out = IR_NEW(j->ctx, ir_inst);
  **out = c;
  return 1;
}

static void join_dims(joiner *j) {
  j->var = IR_NEW_ARRAY(j->ctx, ir_var *, j->n + 1);
  for (int i = 0; i < j->n; i++) {
    const lw_dim *d = &j->dims[i];
    if (lw_dim_fixed(d)) continue;
    j->var[i] = ir_var_new(j->ctx, d->name, TN_INDEX, d->range ? d->lo : d->sizes[0], d->range ? d->hi : d->sizes[d->n - 1]);
    ir_program_dim dim = {.var = j->var[i], .nsizes = d->range ? 0 : d->n, .sizes = d->range ? NULL : d->sizes};
    IR_PUSH(j->ctx, j->p->dims, j->p->ndims, dim);
  }
}

static void join(joiner *j) {
  tn_ctx *ctx = j->ctx;
  ir_program *p = j->p = IR_NEW(ctx, ir_program);
  p->name = j->v[0].p->name;
  p->ninputs = j->v[0].p->ninputs;
  p->noutputs = j->v[0].p->noutputs;
  j->kernels.ctx = j->packed.ctx = ctx;
  join_dims(j);
  join_faces(j);
  for (int c = 0; c < j->nvariants; c++) {
    variant *v = &j->v[c];
    if (v->idle) continue;
    if (v->p->state_bytes) ir_fail(ctx, TN_EUNSUPPORTED, "models of several sizes that keep a state");
    v->kernel = IR_NEW_ARRAY(ctx, int, v->p->nkernels + 1);
    for (int i = 0; i < v->p->nkernels; i++) v->kernel[i] = kernel_of(j, v, &v->p->kernels[i]);
    join_slots(j, v);
    join_pack(j, v);
    p->arena_bytes = larger(p->arena_bytes, v->p->arena_bytes);
    p->pack_arena_bytes = larger(p->pack_arena_bytes, v->p->pack_arena_bytes);
    p->live_peak_bytes = larger(p->live_peak_bytes, v->p->live_peak_bytes);
  }
  p->nrun = choose(j, 0, &p->run);
}

ir_program *lw_compile_sizes(tn_ctx *ctx, const ir_graph *g, int n, const lw_dim *dims, const lw_options *o) {
  joiner j = {.ctx = ctx, .o = o, .n = n, .dims = IR_NEW_ARRAY(ctx, lw_dim, n + 1), .batch = -1};
  memcpy(j.dims, dims, (size_t)n * sizeof *dims);
  for (int i = 0; i < n; i++) {
    if (!dims[i].range) continue;
    if (dims[i].n < 2) ir_fail(ctx, TN_EUSAGE, "'%s': a range needs programs for two sizes at least", dims[i].name);
    if (j.batch >= 0) ir_fail(ctx, TN_EUSAGE, "'%s' and '%s' cannot both be ranges: one of them needs a list of sizes, as 1,8,32", dims[j.batch].name, dims[i].name);
    j.batch = i;
  }
  if (j.batch >= 0) find_cut_inputs(&j, g);
  make_variants(&j, g);
  if (j.batch >= 0) prove(&j);
  join(&j);
#ifndef NDEBUG
  const char *wrong = ir_program_verify(ctx, j.p);
  if (wrong) ir_bug(ctx, "the program of several sizes: %s", wrong);
#endif
  return j.p;
}
