/* tpu_build.c — see tpu_build.h. */
#include "runtime/tpu_build.h"
#include "codegen/build.h"
#include "lower/build.h"
#include "lower/compose.h"
#include "lower/problem.h"
#include "runtime/module.h"
#include "runtime/tpu_sim.h"
#include <math.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

lw_precision rt_tpu_precision(const tpu_machine *m) {
  return m->bf16 > 0 ? LW_PRECISION_BF16 : m->int8 > 0 ? LW_PRECISION_INT8 : LW_PRECISION_F32;
}

/* ---- layouts of weights ---- */

/* Axes of a constant operand so that reductions are outside in the order of the kernel and the rest inside: a tile of
 * the array is then a few long rows. */
static const char *weights_layout(tn_ctx *ctx, const lw_problem *p, ix load) {
  const ir_buf *b = load->u.buf;
  int axis[IR_MAX_RANK], key[IR_MAX_RANK];
  bool moved = false;
  if (!b->constant || b->layout) return NULL;
  for (int d = 0; d < b->rank; d++) {
    int k = p->nred;
    for (int i = 0; i < p->nred; i++)
      if (ix_uses_var(load->args[d], p->red[i]->var)) k = i;
    int j = d;
    for (; j > 0 && key[j - 1] > k; j--) key[j] = key[j - 1], axis[j] = axis[j - 1];
    key[j] = k;
    axis[j] = d;
  }
  ir_text t = {.ctx = ctx};
  ir_put(&t, "layout %s \"perm", b->name);
  for (int d = 0; d < b->rank; d++) {
    ir_put(&t, " %d", axis[d]);
    moved |= axis[d] != d;
  }
  ir_put(&t, "\"\n");
  return moved ? t.s : NULL;
}

static const char *schedule(void *user, tn_ctx *ctx, const ir_kernel *k) {
  (void)user;
  lw_problem p = lw_problem_of(ctx, k);
  if (p.kind != LW_CONTRACTION) return "";
  const char *a = weights_layout(ctx, &p, p.a), *b = weights_layout(ctx, &p, p.b);
  return a && b ? ir_format(ctx, "%s%s", a, b) : a ? a : b ? b : "";
}

static ir_program *lower(tn_ctx *ctx, ir_graph *g) {
  lw_options o = {.layout = LW_LAYOUT_NHWC, .schedule = schedule}; /* no CPU as target: bytes are not made words for its sake */
  return lw_compile(ctx, g, &o);
}

/* ---- ranges ---- */

typedef struct measured {
  int n;
  ir_value **value;
  float *range;
} measured;

static float range_of(void *user, const ir_value *v) {
  const measured *m = user;
  for (int i = 0; i < m->n; i++)
    if (m->value[i] == v) return m->range[i];
  return 1;
}

static uint64_t random_bits(uint64_t *s) { /* splitmix64 */
  uint64_t z = *s += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static void *random_input(tn_ctx *ctx, const ir_value *v, uint64_t seed) {
  int64_t n = ir_value_elements(ctx, v);
  float *f = ir_alloc(ctx, (size_t)n * ir_dtype_bytes(v->dtype) + 1);
  if (v->dtype == TN_F32)
    for (int64_t i = 0; i < n; i++) f[i] = (float)((double)(random_bits(&seed) >> 11) * 0x1p-52 - 1);
  return f; /* others: zeros */
}

/* Runs a copy of the graph on the CPU with the largest magnitudes as outputs. */
static void measure(tn_ctx *ctx, const ir_graph *g, const rt_tpu_options *o, measured *m) {
  ir_value **map;
  ir_graph *copy = ir_graph_clone(ctx, g, &map);
  int first = copy->noutputs;
  for (int i = 0; i < m->n; i++) {
    ir_node *abs = ir_node_new(copy, "Abs", NULL, 1, (ir_value *[]){map[m->value[i]->id]}, 1);
    ir_infer(ctx, abs);
    ir_node *most = ir_node_new(copy, "ReduceMax", NULL, 1, abs->out, 1);
    ir_attr_int(most, "keepdims", 0);
    ir_infer(ctx, most);
    ir_graph_output(copy, most->out[0]);
  }
  const void **in = IR_NEW_ARRAY(ctx, const void *, g->ninputs + 1);
  for (int i = 0; i < g->ninputs; i++) in[i] = o->sample ? o->sample[i] : random_input(ctx, g->inputs[i], (uint64_t)i + 1);
  void **out = IR_NEW_ARRAY(ctx, void *, copy->noutputs + 1);
  for (int i = 0; i < first; i++) out[i] = ir_alloc(ctx, (size_t)ir_value_bytes(ctx, copy->outputs[i]) + 1);
  m->range = IR_NEW_ARRAY(ctx, float, m->n + 1);
  for (int i = 0; i < m->n; i++) out[first + i] = &m->range[i];
  lw_options lo = {.target = cg_target_find(ctx, NULL, NULL)};
  ir_program *p = lw_compile(ctx, copy, &lo);
  rt_module *module = rt_module_build(ctx, p, &(rt_options){.jobs = o->jobs});
  void *state = p->state_bytes ? ir_alloc(ctx, (size_t)p->state_bytes) : NULL;
  int code = rt_run(module, in, out, state, NULL);
  rt_module_free(ctx, module);
  if (code) ir_fail(ctx, TN_ERESOURCE, "measuring ranges for int8: the run failed");
}

/* ---- all of it ---- */

int64_t rt_tpu_cycles(tn_ctx *ctx, const tpu_machine *m, const tpu_program *p) {
  return tpu_simulate(ctx, m, p, &(tpu_sim_options){.no_values = true}, NULL, NULL, NULL)->cycles;
}

typedef struct contest {
  tpu_program *best;
  tpu_options how;
  int64_t cycles;
} contest;

static bool faster(tn_ctx *ctx, const ir_program *p, const tpu_machine *m, const tpu_options *o, contest *c) {
  tpu_program *t = tpu_compile(ctx, p, m, o);
  int64_t cycles = rt_tpu_cycles(ctx, m, t);
  bool wins = !c->best || cycles < c->cycles;
  if (wins) *c = (contest){t, *o, cycles};
  return wins;
}

tpu_program *rt_tpu_program(tn_ctx *ctx, const ir_program *p, const tpu_machine *m, tpu_options *o) {
  tpu_options to = *o;
  if (to.cores > m->cores) ir_fail(ctx, TN_EUSAGE, "%s has %lld cores, not %d", m->name, (long long)m->cores, to.cores);
  bool layouts = !to.layout && m->tile_cols, cores = !to.cores && m->cores > 1;
  if (!layouts && !cores) return tpu_compile(ctx, p, m, &to);
  contest c = {0};
  if (layouts) to.layout = TPU_LAYOUT_TILED;
  if (cores) to.cores = (int)m->cores;
  faster(ctx, p, m, &to, &c);
  if (cores) { /* waking the others takes time too */
    to.cores = 1;
    if (!faster(ctx, p, m, &to, &c)) to.cores = (int)m->cores;
  }
  if (layouts) { /* rows at the pitch of tiles take memory */
    to.layout = TPU_LAYOUT_DENSE;
    faster(ctx, p, m, &to, &c);
  }
  *o = c.how;
  return c.best;
}

rt_tpu_build rt_tpu_compile(tn_ctx *ctx, ir_graph *g, const tpu_machine *m, const rt_tpu_options *options) {
  rt_tpu_options o = options ? *options : (rt_tpu_options){.precision = rt_tpu_precision(m)};
  rt_tpu_build b = {0};
  double start = now();
  lw_options plain = {0};
  lw_pass_infer(ctx, g, &plain);
  lw_pass_dce(ctx, g, &plain);
  lw_pass_canon(ctx, g, &plain);
  lw_narrow_quantised(ctx, g);
  if (o.precision == LW_PRECISION_BF16) lw_narrow_bf16(ctx, g);
  if (o.precision == LW_PRECISION_INT8) {
    measured ranges = {0};
    ranges.n = lw_narrow_operands(ctx, g, &ranges.value);
    if (ranges.n) measure(ctx, g, &o, &ranges);
    lw_narrow_int8(ctx, g, range_of, &ranges);
  }
  b.program = lower(ctx, g);
  b.lower_s = now() - start;
  rt_tpu_compile_program(ctx, &b, m, &o);
  return b;
}

void rt_tpu_compile_program(tn_ctx *ctx, rt_tpu_build *b, const tpu_machine *m, const rt_tpu_options *o) {
  double start = now();
  const void *blob = rt_pack_weights(ctx, b->program, NULL, o->jobs);
  b->pack_s = now() - start;
  start = now();
  b->weights = blob ? (const uint8_t *)blob + sizeof(cg_blob_header) : NULL;
  b->tpu = rt_tpu_program(ctx, b->program, m, &(tpu_options){.tile = o->tile, .weights = b->weights, .cores = o->cores, .layout = o->layout});
  b->compile_s = now() - start;
}
