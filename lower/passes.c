/* passes.c — the pass table, and the small passes: inference with folding, dead code,
 * common sub-expressions. */
#include "lower/lower.h"
#include "lower/build.h"
#include "lower/extent.h"
#include "lower/list.h"
#include "lower/fold.h"
#include "lower/region.h"
#include <string.h>
#include <time.h>

const lw_pass lw_passes[] = {
    {"infer", lw_pass_infer, false, "types, shapes, small constants; composites become their parts"},
    {"extents", lw_pass_extents, false, "outputs of which a run finds out how long they are"},
    {"dce", lw_pass_dce, false, "drops what no output needs"},
    {"cse", lw_pass_cse, false, "equal nodes become one"},
    {"fourier", lw_pass_fourier, true, "Fourier transforms as products with matrices"},
    {"quantised", lw_pass_quantised, true, "products of quantised tensors in integers"},
    {"canon", lw_pass_canon, true, "BatchNorm into convolution and other canonical forms"},
    {"layout", lw_pass_layout, true, "a layout for every edge"},
    {"attend", lw_pass_attend, true, "attention as one kernel; movements around it as layouts"},
    {"clean", lw_pass_dce, false, "drops what no output needs"},
    {"fuse", lw_pass_fuse, false, "gives every node its kernel"},
    {NULL, NULL, false, NULL},
};

/* Shape arithmetic works on vectors of a few elements; anything of real size is left to
 * compiled kernels in the pack section. */
enum { FOLD_LIMIT = 2048 };

static void make_const(ir_graph *g, ir_value *v) {
  v->kind = IR_VALUE_CONST;
  v->def = NULL;
  IR_PUSH(g->ctx, g->params, g->nparams, v);
}

/* Infers n; a composite becomes its parts, which are settled at once, because the shapes
 * of later nodes may depend on what they compute. True when n was a composite. */
static bool settle(tn_ctx *ctx, ir_graph *g, ir_node *n, int depth) {
  if (n->nout && lw_is_list(n->out[0])) return false;
  if (n->nin && lw_is_list(n->in[0]) && ir_node_is(n, "Identity")) {
    lw_replace(g, n, 0, n->in[0]);
    return true;
  }
  if (lw_reads_sized(n)) {
    lw_move_sized(ctx, g, n);
    return true;
  }
  if (n->op->kind != IR_OP_CONTROL || lw_is_region(n)) ir_infer(ctx, n);
  if (n->op->expand && !n->op->value && !n->op->build) {
    if (depth == 64) ir_bug(ctx, "%s: %s expands without end", n->where, n->op->name);
    int first = g->nnodes; /* expand() appends, operands first */
    n->op->expand(g, n);
    if (!n->dead) ir_bug(ctx, "%s: %s was not expanded", n->where, n->op->name);
    for (int i = first, end = g->nnodes; i < end; i++)
      if (!g->nodes[i]->dead) settle(ctx, g, g->nodes[i], depth + 1);
    return true;
  }
  bool known = true;
  for (int k = 0; k < n->nout; k++) known &= !n->out[k] || n->out[k]->data;
  if (!n->opaque && (known || lw_fold_node(ctx, n, FOLD_LIMIT))) {
    for (int k = 0; k < n->nout; k++)
      if (n->out[k]) make_const(g, n->out[k]);
    n->dead = true;
  }
  return false;
}

void lw_settle_node(tn_ctx *ctx, ir_graph *g, ir_node *n) { settle(ctx, g, n, 0); }

void lw_settle(tn_ctx *ctx, ir_graph *g, int first) {
  for (int i = first, end = g->nnodes; i < end; i++)
    if (!g->nodes[i]->dead) settle(ctx, g, g->nodes[i], 0);
}

/* What a gradient is taken by stays unknown, so that nothing computed from it is folded away. */
static void keep_unknown(ir_graph *g) {
  for (int i = 0; i < g->nnodes; i++)
    for (int k = 2; g->nodes[i]->op->kind == IR_OP_GRADIENT && k < g->nodes[i]->nin; k++) {
      ir_value *x = g->nodes[i]->in[k];
      if (!x) continue;
      if (x->def) x->def->opaque = true;
      else if (x->data) x->raw = x->data, x->data = NULL;
    }
}

void lw_mark_packed(ir_graph *g) {
  for (int i = 0; i < g->nvalues; i++) g->values[i]->packed = ir_value_source(g->values[i]) != NULL;
  for (int i = 0; i < g->nnodes; i++) {
    ir_node *n = g->nodes[i];
    bool packed = n->nin > 0 && !lw_is_region(n); /* a generator runs each time */
    for (int k = 0; k < n->nin; k++) packed &= !n->in[k] || n->in[k]->packed;
    for (int k = 0; k < n->nout; k++)
      if (n->out[k]) n->out[k]->packed = packed;
  }
}

/* Constants stay quantised: integer products take what DequantizeLinear is of (quantised.c). */
static void keep_quantised(ir_graph *g) {
  for (int i = 0; i < g->nnodes; i++)
    if (ir_node_is(g->nodes[i], "DequantizeLinear")) g->nodes[i]->opaque = true;
}

void lw_pass_infer(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  keep_unknown(g);
  if (options && options->target && !options->unscheduled) keep_quantised(g);
  for (bool again = true; again;) {
    again = false;
    ir_graph_sort(g);
    for (int i = 0, count = g->nnodes; i < count; i++)
      if (!g->nodes[i]->dead) again |= settle(ctx, g, g->nodes[i], 0);
  }
  ir_graph_sort(g);
}

void lw_pass_dce(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  (void)options;
  (void)ctx;
  for (int i = 0; i < g->nnodes; i++) g->nodes[i]->dead = true;
  /* nodes are in topological order: mark from the outputs back */
  for (int i = 0; i < g->noutputs; i++)
    if (g->outputs[i]->def) g->outputs[i]->def->dead = false;
  for (int i = g->nnodes; i-- > 0;) {
    ir_node *n = g->nodes[i];
    if (n->dead) continue;
    for (int k = 0; k < n->nin; k++)
      if (n->in[k] && n->in[k]->def) n->in[k]->def->dead = false;
  }
  ir_graph_sort(g);
  ir_graph_analyse(g);
}

static bool same_attr(const ir_attr *a, const ir_attr *b) {
  if (strcmp(a->name, b->name) || a->kind != b->kind || a->n != b->n) return false;
  switch (a->kind) {
  case IR_ATTR_INT: return a->i == b->i;
  case IR_ATTR_FLOAT: return a->f == b->f;
  case IR_ATTR_STRING: return strcmp(a->s, b->s) == 0;
  case IR_ATTR_INTS: return memcmp(a->ints, b->ints, (size_t)a->n * sizeof *a->ints) == 0;
  case IR_ATTR_FLOATS: return memcmp(a->floats, b->floats, (size_t)a->n * sizeof *a->floats) == 0;
  default: return false; /* tensors and graphs: not compared */
  }
}

static bool same_node(const ir_node *a, const ir_node *b) {
  if (a->op != b->op || a->nin != b->nin || a->nout != b->nout || a->nattrs != b->nattrs || a->opset != b->opset) return false;
  if (strncmp(a->op->name, "Random", 6) == 0 || strcmp(a->op->name, "Bernoulli") == 0 || strcmp(a->op->name, "Multinomial") == 0) return false;
  for (int i = 0; i < a->nin; i++)
    if (a->in[i] != b->in[i]) return false;
  for (int i = 0; i < a->nattrs; i++)
    if (!same_attr(&a->attrs[i], &b->attrs[i])) return false;
  for (int i = 0; i < a->nout; i++)
    if (!a->out[i] != !b->out[i]) return false;
  return true;
}

void lw_pass_cse(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  (void)options;
  size_t cap = 64;
  while (cap < (size_t)g->nnodes * 2) cap *= 2;
  ir_node **table = IR_NEW_ARRAY(ctx, ir_node *, cap);
  for (int i = 0; i < g->nnodes; i++) {
    ir_node *n = g->nodes[i];
    uint64_t h = (uintptr_t)n->op >> 4;
    for (int k = 0; k < n->nin; k++) h = h * 0x100000001b3u ^ (n->in[k] ? n->in[k]->id : 0);
    size_t at = h & (cap - 1);
    for (; table[at] && !same_node(table[at], n); at = (at + 1) & (cap - 1)) continue;
    if (!table[at]) {
      table[at] = n;
      continue;
    }
    bool output = false; /* two outputs of the graph stay two values */
    for (int k = 0; k < n->nout; k++)
      for (int o = 0; o < g->noutputs; o++) output |= n->out[k] && g->outputs[o] == n->out[k];
    if (output) continue;
    for (int k = 0; k < n->nout; k++)
      if (n->out[k]) ir_graph_replace(g, n->out[k], table[at]->out[k]);
    n->dead = true;
  }
  ir_graph_sort(g);
  ir_graph_analyse(g);
}

void lw_bind_dims(tn_ctx *ctx, ir_graph *g, int n, const char *const *names, const int64_t *sizes) {
  ir_text missing = {.ctx = ctx};
  for (int i = 0; i < g->ninputs; i++) {
    ir_value *v = g->inputs[i];
    for (int a = 0; a < v->rank; a++) {
      ix d = v->dims[a];
      if (d->op == IX_CONST) continue;
      for (int k = 0; k < n && d->op == IX_VAR; k++)
        if (strcmp(d->u.var->name, names[k]) == 0) v->dims[a] = ix_index(ctx, sizes[k]);
      if (v->dims[a]->op != IX_CONST && !(missing.s && strstr(missing.s, ix_print(ctx, d))))
        ir_put(&missing, "%s%s", missing.n ? ", " : "", ix_print(ctx, d));
    }
    if (!ir_size_fits(v)) ir_fail(ctx, TN_EINPUT, "input '%s': its size overflows", v->name);
  }
  if (missing.n) ir_fail(ctx, TN_EUSAGE, "dimensions without a size: %s (give --dim NAME=N)", missing.s);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

ir_program *lw_compile(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  for (const lw_pass *p = lw_passes; p->name; p++) {
    double start = now();
    p->run(ctx, g, options);
#ifndef NDEBUG
    const char *wrong = ir_graph_verify(ctx, g);
    if (wrong) ir_bug(ctx, "after pass %s: %s", p->name, wrong);
#endif
    if (options->after_pass) options->after_pass(options->after_user, ctx, p->name, g, now() - start);
  }
  ir_program *p = lw_make_program(ctx, g, options);
#ifndef NDEBUG
  const char *wrong = ir_program_verify(ctx, p);
  if (wrong) ir_bug(ctx, "the program: %s", wrong);
#endif
  return p;
}
