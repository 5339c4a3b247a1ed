/* test_tpu_compile.c — programs of the systolic machine against the interpreter, bit by bit.
 *
 * TENON_TPU_SHAPES=N runs N random contractions (400 by default) from TENON_TPU_FIRST=1 on, TENON_TPU_KERNELS=N random kernels (200). */
#include "codegen/tpu_compile.h"
#include "random_kernel.h"
#include "runtime/tpu_sim.h"
#include "support_tpu_shapes.h"
#include <criterion/criterion.h>
#include <stdlib.h>

/* A program of one call: parameters that are read are inputs, those that are written outputs. */
static void add_slot(tn_ctx *ctx, ir_program *p, const ir_buf *b, ir_slot_kind kind, int index) {
  ir_slot s = {.name = b->name, .kind = kind, .index = index, .dtype = b->dtype, .rank = b->rank, .layout = b->layout};
  for (int d = 0; d < b->rank; d++) s.dims[d] = ix_need_const(ctx, b->shape[d], "size");
  int64_t elements = ix_need_const(ctx, ir_buf_elements(ctx, b), "size");
  if (b->layout) { /* callers see memory, padding and all */
    s.rank = 1;
    s.dims[0] = elements;
  }
  s.bytes = elements * (int64_t)ir_dtype_bytes(b->dtype);
  IR_PUSH(ctx, p->slots, p->nslots, s);
}

static ir_program *program_of(tn_ctx *ctx, const ir_kernel *k) {
  ir_program *p = IR_NEW(ctx, ir_program);
  p->name = k->name;
  IR_PUSH(ctx, p->kernels, p->nkernels, (ir_program_kernel){.kernel = k, .schedule = "", .lowered = k});
  ir_inst call = {.kind = IR_CALL, .nargs = k->nbufs, .name = k->name, .args = IR_NEW_ARRAY(ctx, int, k->nbufs + 1)};
  for (int i = 0; i < k->nbufs; i++) {
    const ir_buf *b = k->bufs[i];
    if (b->access & IR_IN) add_slot(ctx, p, b, IR_SLOT_INPUT, p->ninputs++);
    if (b->access & IR_OUT) add_slot(ctx, p, b, IR_SLOT_OUTPUT, p->noutputs++);
    call.args[i] = p->nslots - 1;
    if (b->access != IR_INOUT) continue;
    ir_inst copy = {.kind = IR_COPY_SLOT, .nargs = 2, .args = IR_NEW_ARRAY(ctx, int, 2)};
    copy.args[0] = p->nslots - 1;
    copy.args[1] = p->nslots - 2;
    IR_PUSH(ctx, p->run, p->nrun, copy);
  }
  IR_PUSH(ctx, p->run, p->nrun, call);
  return p;
}

typedef struct check {
  const char *text;      /* or null: a random kernel of the seed */
  uint64_t seed;
  unsigned flags;
  const char *machine;   /* text of a machine */
  tpu_tunables tile;
  int cores;
  int64_t matmuls;       /* out */
  bool compared;
} check;

/* A small machine, so that everything is ragged and memory is short. */
static const char small[] = "rows 8\ncols 8\nub_bytes 262144\nacc_bytes 65536\nfifo_depth 4\nint8 1\nbf16 1\nf16 1\nf32 1\ndataflow ws\ncores 3\n";
static const char tight[] = "rows 5\ncols 7\nub_bytes 8192\nacc_bytes 4096\nfifo_depth 2\nint8 1\nbf16 1\nf16 1\nf32 1\ndataflow ws\ncores 3\n";
static const char tiled[] = "rows 8\ncols 8\nub_bytes 262144\nacc_bytes 65536\nfifo_depth 4\nint8 1\nbf16 1\nf16 1\nf32 1\ncores 3\ntile_rows 2\ntile_cols 4\n";

typedef struct simulation {
  const tpu_machine *m;
  const tpu_program *p;
  const void *const *in;
  void *const *out;
} simulation;

static void simulate(tn_ctx *ctx, void *arg) {
  simulation *s = arg;
  tpu_simulate(ctx, s->m, s->p, NULL, s->in, s->out, NULL);
}

static void run_check(tn_ctx *ctx, void *arg) {
  check *x = arg;
  ir_kernel *k = x->text ? ir_kernel_parse(ctx, x->text, "test") : random_kernel(ctx, x->seed, x->flags);
  random_args want = random_args_new(ctx, k, x->seed);
  for (int i = 0; i < k->nbufs; i++)
    if (k->bufs[i]->access == IR_OUT) memset(want.args[i], 0, (size_t)want.bytes[i]); /* elements that stay unwritten */
  random_args got = random_args_copy(ctx, k, &want);
  ir_interp(ctx, k, want.args, want.dims);
  const tpu_machine *m = tpu_machine_parse(ctx, x->machine, "machine");
  tpu_options o = {.tile = &x->tile, .cores = x->cores};
  tpu_program *p = tpu_compile(ctx, program_of(ctx, k), m, &o);
  for (int core = 0; core < p->ncores; core++)
    for (int64_t i = 0; i < p->core[core].n; i++) x->matmuls += p->core[core].insts[i].op == TPU_MATMUL;
  const void **in = IR_NEW_ARRAY(ctx, const void *, k->nbufs + 1);
  void **out = IR_NEW_ARRAY(ctx, void *, k->nbufs + 1);
  int nin = 0, nout = 0;
  for (int i = 0; i < k->nbufs; i++) {
    if (k->bufs[i]->access & IR_IN) in[nin++] = got.args[i];
    if (k->bufs[i]->access == IR_INOUT) {
      void *copy = ir_alloc(ctx, (size_t)got.bytes[i] + 1);
      memcpy(copy, got.args[i], (size_t)got.bytes[i]);
      got.args[i] = copy;
    }
    if (k->bufs[i]->access & IR_OUT) out[nout++] = got.args[i];
  }
  simulation s = {m, p, in, out};
  if (ir_protect(ctx, simulate, &s)) {
    if (x->text || !strstr(ir_error(ctx), "was never written")) ir_fail(ctx, TN_EWRONG, "%s", ir_error(ctx));
    return; /* some random kernels leave elements of their outputs unwritten */
  }
  x->compared = true;
  const char *bad = random_args_differ(ctx, k, &want, &got);
  if (bad) ir_fail(ctx, TN_EWRONG, "seed %llu: %s\n%s", (unsigned long long)x->seed, bad, ir_kernel_print(ctx, k));
}

static void expect(check *x) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, run_check, x);
  if (s) fprintf(stderr, "seed %llu: %s\n", (unsigned long long)x->seed, tn_error(ctx));
  cr_assert_eq(s, TN_OK, "seed %llu: %.300s", (unsigned long long)x->seed, tn_error(ctx));
  tn_ctx_free(ctx);
}

static int64_t count_of(const char *name, int64_t otherwise) {
  const char *s = getenv(name);
  return s && atoll(s) > 0 ? atoll(s) : otherwise;
}

static void shape(uint64_t seed, int64_t *matmuls) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  check x = {.seed = seed, .machine = (const char *const[]){tight, small, tiled}[seed % 3], .cores = 1 + (int)(seed / 3 % 5) % 3};
  uint64_t t = seed * 77;
  if (seed % 4) x.tile = (tpu_tunables){.rows = 1 + (int64_t)(t % 40), .columns = 1 + (int64_t)(t / 40 % 8), .stationary = (int)(t / 320 % 3)};
  x.text = tpu_shape(ctx, seed);
  expect(&x);
  *matmuls += x.matmuls;
  tn_ctx_free(ctx);
}

Test(tpu_compile, contractions, .timeout = 36000) {
  int64_t matmuls = 0, n = count_of("TENON_TPU_SHAPES", 400), first = count_of("TENON_TPU_FIRST", 1);
  for (int64_t s = first; s < first + n; s++) shape((uint64_t)s, &matmuls);
  shape(43755, &matmuls); /* the largest box of an operand is not that of the tile in the middle */
  cr_assert(matmuls > n, "the matrix unit was hardly used: %lld", (long long)matmuls);
}

Test(tpu_compile, random_kernels, .timeout = 36000) {
  int64_t n = count_of("TENON_TPU_KERNELS", 200);
  int64_t compared = 0;
  for (int64_t s = 1; s <= n; s++) {
    check x = {.seed = (uint64_t)s, .flags = RANDOM_STATIC | (s % 4 ? RANDOM_PLAIN : 0), .machine = s / 3 % 2 ? small : tiled, .cores = 1 + (int)(s % 3)};
    expect(&x);
    compared += x.compared;
  }
  cr_assert(compared * 4 > n * 3, "only %lld of %lld kernels write all of their outputs", (long long)compared, (long long)n);
}
