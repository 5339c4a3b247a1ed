/* run_cross.c — writes what tests/cross/test.sh runs on another CPU.
 *
 *   run_cross DIR CPU TRIPLE COUNT
 *
 * DIR/kernels.o  random kernels k0, k1, ... for the CPU, compiled as one module
 * DIR/table.c    their addresses
 * DIR/cases.bin  per kernel what tests/cross/main.c reads: 8-byte integers tasks, scratch
 *                bytes, ndims, dims, nbufs; per buffer dtype, bytes, contents before, contents after, a byte per
 *                element: 1, or 0 in padding
 */
#include "codegen/codegen.h"
#include "ir/interp.h"
#include "random_kernel.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct job {
  const char *dir, *cpu, *triple;
  int count;
} job;

typedef struct dims {
  tn_ctx *ctx;
  const ir_kernel *k;
  const int64_t *values;
} dims;

static ix dim_value(void *user, ir_var *v) {
  dims *d = user;
  for (int i = 0; i < d->k->ndims; i++)
    if (d->k->dims[i] == v) return ix_index(d->ctx, d->values[i]);
  return NULL;
}

static FILE *open_in(tn_ctx *ctx, const char *dir, const char *name) {
  FILE *f = fopen(ir_format(ctx, "%s/%s", dir, name), "wb");
  if (!f) ir_fail(ctx, TN_ERESOURCE, "cannot write %s/%s", dir, name);
  return f;
}

static void put(FILE *f, int64_t v) { fwrite(&v, 8, 1, f); }

static void run(tn_ctx *ctx, void *arg) {
  job *j = arg;
  const cg_target *t = cg_target_find(ctx, j->cpu, j->triple);
  const ir_kernel **kernels = IR_NEW_ARRAY(ctx, const ir_kernel *, j->count);
  const char **symbols = IR_NEW_ARRAY(ctx, const char *, j->count);
  for (int i = 0; i < j->count; i++) {
    kernels[i] = random_kernel(ctx, 5000 + (uint64_t)i, i % 4 ? 0 : RANDOM_F32);
    symbols[i] = ir_format(ctx, "k%d", i);
  }
  const cg_object *o = cg_compile_kernels(ctx, t, j->count, kernels, symbols);
  FILE *f = open_in(ctx, j->dir, "kernels.o");
  fwrite(o->bytes, 1, o->size, f);
  fclose(f);
  f = open_in(ctx, j->dir, "table.c");
  for (int i = 0; i < j->count; i++) fprintf(f, "void k%d(void *const *, int, int);\n", i);
  fprintf(f, "void (*const table[])(void *const *, int, int) = {");
  for (int i = 0; i < j->count; i++) fprintf(f, "k%d, ", i);
  fprintf(f, "0};\n");
  fclose(f);
  f = open_in(ctx, j->dir, "cases.bin");
  for (int i = 0; i < j->count; i++) {
    const ir_kernel *k = kernels[i];
    random_args before = random_args_new(ctx, k, (uint64_t)i), after = random_args_copy(ctx, k, &before);
    ir_interp(ctx, k, after.args, after.dims);
    dims d = {ctx, k, before.dims};
    put(f, ix_need_const(ctx, ix_subst(ctx, o->kernels[i].ntasks, dim_value, &d), "number of tasks"));
    put(f, cg_kernel_scratch(&o->kernels[i], 1));
    put(f, k->ndims);
    for (int n = 0; n < k->ndims; n++) put(f, before.dims[n]);
    put(f, k->nbufs);
    for (int n = 0; n < k->nbufs; n++) {
      put(f, k->bufs[n]->dtype);
      put(f, before.bytes[n]);
      fwrite(before.args[n], 1, (size_t)before.bytes[n], f);
      fwrite(after.args[n], 1, (size_t)before.bytes[n], f);
      fwrite(random_args_places(ctx, k, &before, n), 1, (size_t)before.bytes[n] / ir_dtype_bytes(k->bufs[n]->dtype), f);
    }
  }
  fclose(f);
}

int main(int argc, char **argv) {
  if (argc != 5) return TN_EUSAGE;
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status status = ir_protect(ctx, run, &(job){argv[1], argv[2], argv[3], atoi(argv[4])});
  if (status) fprintf(stderr, "%s\n", tn_error(ctx));
  tn_ctx_free(ctx);
  return status;
}
