/* sample.h — a small program made by hand, which uses all that a program can: packed and copied
 * weights, a parallel kernel with scratch, a kernel called twice, dimensions from lets, an if and
 * a while, state, copies between slots, outputs of two types.
 *
 *   pack:  wt = transpose(w), bias = b
 *   run:   h = x wt' + bias      parallel over rows, sums through a scratch row
 *          t = max(0, h) * scale
 *          top[i] = index of the largest t[i, :]
 *          if top[0] >= 0: y = t
 *          z = max(0, t) * scale  (the same kernel again)
 *          while counters[0] < end: counters += n    state; n, end are lets
 */
#ifndef TESTS_AOT_SAMPLE_H
#define TESTS_AOT_SAMPLE_H
#include "ir/ir.h"
#include "sample_data.h"
#include <string.h>

enum { ROW_SCRATCH = 2048 };

static inline ir_buf *sample_buf(tn_ctx *c, const char *name, tn_dtype t, int rank, int64_t a, int64_t b, ir_access access) {
  ix shape[2] = {ix_index(c, a), ix_index(c, b)};
  ir_buf *buf = ir_buf_new(c, name, t, rank, shape, NULL, IR_GLOBAL);
  buf->access = access;
  return buf;
}

static inline ir_kernel *sample_kernel(tn_ctx *c, const char *name, int n, ir_buf *const *bufs, ir_var *dim, const ir_stmt *body) {
  ir_kernel *k = IR_NEW(c, ir_kernel);
  k->name = name, k->nbufs = n, k->body = body;
  k->bufs = IR_NEW_ARRAY(c, ir_buf *, n);
  memcpy(k->bufs, bufs, sizeof *bufs * (size_t)n);
  if (dim) {
    k->ndims = 1, k->dims = IR_NEW_ARRAY(c, ir_var *, 1);
    k->dims[0] = dim;
  }
  return k;
}

static inline const ir_stmt *parallel(tn_ctx *c, const ir_stmt *loop) {
  return ir_for(c, loop->var, loop->lo, loop->hi, IR_PARALLEL, loop->body);
}

static inline ir_kernel *sample_transpose(tn_ctx *c) {
  ir_buf *w = sample_buf(c, "w", TN_F32, 2, INNER, COLS, IR_IN), *wt = sample_buf(c, "wt", TN_F32, 2, COLS, INNER, IR_OUT);
  ir_builder *b = ir_builder_new(c);
  ix i = ib_loop(b, "i", ix_index(c, COLS)), k = ib_loop(b, "k", ix_index(c, INNER));
  ib_store(b, wt, (ix[]){i, k}, ib_load(b, w, (ix[]){k, i}));
  ib_end_n(b, 2);
  return sample_kernel(c, "transpose", 2, (ir_buf *[]){w, wt}, NULL, ib_finish(b));
}

static inline ir_kernel *sample_dense(tn_ctx *c) {
  ir_buf *x = sample_buf(c, "x", TN_F32, 2, ROWS, INNER, IR_IN), *wt = sample_buf(c, "wt", TN_F32, 2, COLS, INNER, IR_IN);
  ir_buf *bias = sample_buf(c, "bias", TN_F32, 1, COLS, 0, IR_IN), *h = sample_buf(c, "h", TN_F32, 2, ROWS, COLS, IR_OUT);
  ir_builder *b = ir_builder_new(c);
  ix i = ib_loop(b, "i", ix_index(c, ROWS));
  ix shape[] = {ix_index(c, ROW_SCRATCH)};
  ir_buf *row = ib_alloc(b, "row", TN_F32, 1, shape, IR_LOCAL);
  ix j = ib_loop(b, "j", ix_index(c, COLS));
  ir_buf *acc = ib_local(b, "acc", TN_F32, ix_float(c, TN_F32, 0));
  ix k = ib_loop(b, "k", ix_index(c, INNER));
  ib_update(b, acc, NULL, IR_ADD, ix_mul(c, ib_load(b, x, (ix[]){i, k}), ib_load(b, wt, (ix[]){j, k})));
  ib_end(b);
  ib_store(b, row, (ix[]){ix_muli(c, j, 3)}, ix_add(c, ib_get(b, acc), ib_load(b, bias, &j)));
  ib_end(b);
  ix o = ib_loop(b, "o", ix_index(c, COLS));
  ib_store(b, h, (ix[]){i, o}, ib_load(b, row, (ix[]){ix_muli(c, o, 3)}));
  ib_end_n(b, 2);
  return sample_kernel(c, "dense", 4, (ir_buf *[]){x, wt, bias, h}, NULL, parallel(c, ib_finish(b)));
}

static inline ir_kernel *sample_relu(tn_ctx *c, const char *name, const char *in, const char *out) {
  ir_buf *h = sample_buf(c, in, TN_F32, 2, ROWS, COLS, IR_IN), *y = sample_buf(c, out, TN_F32, 2, ROWS, COLS, IR_OUT);
  ir_builder *b = ir_builder_new(c);
  ix i = ib_loop(b, "i", ix_index(c, ROWS)), j = ib_loop(b, "j", ix_index(c, COLS));
  ix v = ix_max(c, ix_float(c, TN_F32, 0), ib_load(b, h, (ix[]){i, j}));
  ib_store(b, y, (ix[]){i, j}, ix_mul(c, v, ix_float(c, TN_F32, 1.25)));
  ib_end_n(b, 2);
  return sample_kernel(c, name, 2, (ir_buf *[]){h, y}, NULL, ib_finish(b));
}

static inline ir_kernel *sample_count(tn_ctx *c) { /* steps[i] += n */
  ir_buf *s = sample_buf(c, "steps", TN_I64, 1, 3, 0, IR_INOUT);
  ir_var *n = ir_var_new(c, "n", TN_INDEX, 0, 1000);
  ir_builder *b = ir_builder_new(c);
  ix i = ib_loop(b, "i", ix_index(c, 3));
  ib_store(b, s, &i, ix_add(c, ib_load(b, s, &i), ix_cast(c, TN_I64, n->expr)));
  ib_end(b);
  return sample_kernel(c, "count", 1, (ir_buf *[]){s}, n, ib_finish(b));
}

static inline ir_kernel *sample_top(tn_ctx *c) {
  ir_buf *y = sample_buf(c, "y", TN_F32, 2, ROWS, COLS, IR_IN), *top = sample_buf(c, "top", TN_I64, 1, ROWS, 0, IR_OUT);
  ir_builder *b = ir_builder_new(c);
  ix i = ib_loop(b, "i", ix_index(c, ROWS));
  ir_buf *best = ib_local(b, "best", TN_I64, ix_int(c, TN_I64, 0));
  ir_buf *value = ib_local(b, "value", TN_F32, ib_load(b, y, (ix[]){i, ix_index(c, 0)}));
  ix j = ib_loop(b, "j", ix_index(c, COLS));
  ib_if(b, ix_gt(c, ib_load(b, y, (ix[]){i, j}), ib_get(b, value)));
  ib_set(b, value, ib_load(b, y, (ix[]){i, j}));
  ib_set(b, best, ix_cast(c, TN_I64, j));
  ib_end_n(b, 2);
  ib_store(b, top, &i, ib_get(b, best));
  ib_end(b);
  return sample_kernel(c, "top", 2, (ir_buf *[]){y, top}, NULL, ib_finish(b));
}

static inline ir_inst sample_call(tn_ctx *c, int kernel, const char *name, int n, const int *slots) {
  ir_inst inst = {.kind = IR_CALL, .kernel = kernel, .nargs = n, .name = name};
  inst.args = IR_NEW_ARRAY(c, int, n);
  memcpy(inst.args, slots, sizeof *slots * (size_t)n);
  return inst;
}

static inline ir_inst sample_copy(tn_ctx *c, int dst, int src) {
  ir_inst inst = sample_call(c, 0, NULL, 2, (int[]){dst, src});
  inst.kind = IR_COPY_SLOT;
  return inst;
}

/* w: INNER x COLS, b: COLS; they must live as long as the program. */
static inline ir_program *sample_program(tn_ctx *c, const float *w, const float *b) {
  ir_program *p = IR_NEW(c, ir_program);
  enum { X, Y, Z, TOP, STEPS_OUT, W, B, WT, BIAS, H, T, STEPS, NSLOTS };
  const int64_t rc = ROWS * COLS * 4;
  const ir_slot slots[NSLOTS] = {
      [X] = {.name = "x \"in\" ?*/", .kind = IR_SLOT_INPUT, .dtype = TN_F32, .rank = 2, .dims = {ROWS, INNER}, .bytes = ROWS * INNER * 4},
      [Y] = {.name = "y", .kind = IR_SLOT_OUTPUT, .dtype = TN_F32, .rank = 2, .dims = {ROWS, COLS}, .bytes = rc},
      [Z] = {.name = "z", .kind = IR_SLOT_OUTPUT, .index = 1, .dtype = TN_F32, .rank = 2, .dims = {ROWS, COLS}, .bytes = rc},
      [TOP] = {.name = "top", .kind = IR_SLOT_OUTPUT, .index = 2, .dtype = TN_I64, .rank = 1, .dims = {ROWS}, .bytes = ROWS * 8},
      [STEPS_OUT] = {.name = "steps", .kind = IR_SLOT_OUTPUT, .index = 3, .dtype = TN_I64, .rank = 1, .dims = {3}, .bytes = 24},
      [W] = {.name = "w", .kind = IR_SLOT_RAW, .dtype = TN_F32, .rank = 2, .dims = {INNER, COLS}, .bytes = INNER * COLS * 4, .data = w},
      [B] = {.name = "b", .kind = IR_SLOT_RAW, .index = 1, .dtype = TN_F32, .rank = 1, .dims = {COLS}, .bytes = COLS * 4, .data = b},
      [WT] = {.name = "wt", .kind = IR_SLOT_WEIGHTS, .dtype = TN_F32, .rank = 2, .dims = {COLS, INNER}, .bytes = INNER * COLS * 4},
      [BIAS] = {.name = "bias", .kind = IR_SLOT_WEIGHTS, .offset = 4800, .dtype = TN_F32, .rank = 1, .dims = {COLS}, .bytes = COLS * 4},
      [H] = {.name = "h", .kind = IR_SLOT_ARENA, .dtype = TN_F32, .rank = 2, .dims = {ROWS, COLS}, .bytes = rc},
      [T] = {.name = "t", .kind = IR_SLOT_ARENA, .offset = 896, .dtype = TN_F32, .rank = 2, .dims = {ROWS, COLS}, .bytes = rc},
      [STEPS] = {.name = "counters", .kind = IR_SLOT_STATE, .dtype = TN_I64, .rank = 1, .dims = {3}, .bytes = 24},
  };
  p->name = "sample", p->nslots = NSLOTS;
  p->slots = IR_NEW_ARRAY(c, ir_slot, NSLOTS);
  memcpy(p->slots, slots, sizeof slots);
  p->ninputs = 1, p->noutputs = 4, p->nraw = 2;
  p->weights_bytes = 4800 + 128, p->arena_bytes = 2 * 896, p->state_bytes = 64, p->live_peak_bytes = 2 * 896;
  enum { TRANSPOSE, DENSE, RELU, AGAIN, COUNT, TOPK, NKERNELS };
  const ir_kernel *kernels[NKERNELS] = {sample_transpose(c), sample_dense(c), sample_relu(c, "relu", "h", "y"),
                                        sample_relu(c, "again", "y", "z"), sample_count(c), sample_top(c)};
  p->nkernels = NKERNELS;
  p->kernels = IR_NEW_ARRAY(c, ir_program_kernel, NKERNELS);
  for (int i = 0; i < NKERNELS; i++) p->kernels[i] = (ir_program_kernel){kernels[i], "", kernels[i]};
  p->npack = 2;
  p->pack = IR_NEW_ARRAY(c, ir_inst, 2);
  p->pack[0] = sample_call(c, TRANSPOSE, "w", 2, (int[]){W, WT});
  p->pack[1] = sample_copy(c, BIAS, B);
  /* values that read slots: top[0], an output, and counters[0], state */
  ix zero[1] = {ix_index(c, 0)};
  ix top0 = ix_load(c, sample_buf(c, "top", TN_I64, 1, ROWS, 0, IR_IN), zero);
  ix counter = ix_cast(c, TN_INDEX, ix_load(c, sample_buf(c, "counters", TN_I64, 1, 3, 0, IR_IN), zero));
  ir_var *n = ir_var_new(c, "n", TN_INDEX, 1, 1), *end = ir_var_new(c, "end", TN_INDEX, INT64_MIN / 4, INT64_MAX / 4);
  ir_inst *then = IR_NEW_ARRAY(c, ir_inst, 1), *other = IR_NEW_ARRAY(c, ir_inst, 1), *body = IR_NEW_ARRAY(c, ir_inst, 1);
  then[0] = sample_copy(c, Y, T);
  other[0] = sample_copy(c, Y, H);
  body[0] = sample_call(c, COUNT, "count", 1, (int[]){STEPS});
  p->nrun = 9;
  p->run = IR_NEW_ARRAY(c, ir_inst, 9);
  p->run[0] = sample_call(c, DENSE, "dense (Gemm)", 4, (int[]){X, WT, BIAS, H});
  p->run[1] = sample_call(c, RELU, "relu (Relu)", 2, (int[]){H, T});
  p->run[2] = sample_call(c, TOPK, "top (ArgMax)", 2, (int[]){T, TOP});
  p->run[3] = (ir_inst){.kind = IR_INST_IF, .value = ix_le(c, ix_int(c, TN_I64, 0), top0), .nbody = 1, .body = then, .nother = 1, .other = other};
  p->run[4] = sample_call(c, AGAIN, "again (Relu)", 2, (int[]){T, Z});
  p->run[5] = (ir_inst){.kind = IR_INST_LET, .var = n, .value = ix_index(c, 1)};
  p->run[6] = (ir_inst){.kind = IR_INST_LET, .var = end, .value = ix_addi(c, counter, 5)};
  p->run[7] = (ir_inst){.kind = IR_INST_WHILE, .value = ix_lt(c, counter, end->expr), .nbody = 1, .body = body};
  p->run[8] = sample_copy(c, STEPS_OUT, STEPS);
  return p;
}

#endif
