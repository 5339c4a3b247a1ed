/* ops_help.h — tests of ops as graph text: constants go in, inference folds the nodes
 * through the interpreter, and outputs are compared in pairs: what came out, what is wanted.
 *
 *   ops_check("const x: f32[3] = [1.0, 2.0, 3.0]  y = Tile(x, r) ... output y, want");
 */
#ifndef OPS_HELP_H
#define OPS_HELP_H
#include "ir/interp.h"
#include "ir/ir.h"
#include "lower/lower.h"
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static inline void ops_run(tn_ctx *ctx, void *arg) {
  ir_graph **g = arg;
  *g = ir_graph_parse(ctx, ir_format(ctx, "graph g { %s }", *(const char **)arg), "test");
  lw_pass_infer(ctx, *g, NULL);
}

static inline void ops_compare(tn_ctx *ctx, const char *text, const ir_value *y, const ir_value *want) {
  cr_assert(y->data != NULL && want->data != NULL, "%s: '%s' was not computed", text, y->name);
  cr_assert(y->dtype == want->dtype && y->rank == want->rank, "%s: %s of rank %d, not %s of rank %d", text, ir_dtype_name(y->dtype),
            y->rank, ir_dtype_name(want->dtype), want->rank);
  for (int i = 0; i < y->rank; i++) cr_assert(y->dims[i] == want->dims[i], "%s: axis %d is %s, not %s", text, i, ix_print(ctx, y->dims[i]), ix_print(ctx, want->dims[i]));
  size_t size = ir_dtype_bytes(y->dtype);
  for (int64_t i = 0, n = ir_value_elements(ctx, y); i < n; i++) {
    ir_scalar a = ir_scalar_load(y->dtype, (const char *)y->data + (size_t)i * size), b = ir_scalar_load(y->dtype, (const char *)want->data + (size_t)i * size);
    if (!ir_is_float(y->dtype)) cr_assert(a.i == b.i, "%s: element %lld is %lld, not %lld", text, (long long)i, (long long)a.i, (long long)b.i);
    else cr_assert(a.f == b.f || (isnan(a.f) && isnan(b.f)) || fabs(a.f - b.f) <= 1e-5 * (1 + fabs(b.f)), "%s: element %lld is %g, not %g", text, (long long)i, a.f, b.f);
  }
}

static inline void ops_check(const char *text) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  const void *arg = text;
  tn_status s = ir_protect(ctx, ops_run, &arg);
  cr_assert(s == TN_OK, "%s: %s", text, ir_error(ctx));
  const ir_graph *g = arg;
  for (int i = 0; i + 1 < g->noutputs; i += 2) ops_compare(ctx, text, g->outputs[i], g->outputs[i + 1]);
  tn_ctx_free(ctx);
}

/* The graph is refused with that status and a message that holds `part`. */
static inline void ops_refused(const char *text, tn_status status, const char *part) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  const void *arg = text;
  tn_status s = ir_protect(ctx, ops_run, &arg);
  cr_assert(s == status && strstr(ir_error(ctx), part), "%s: status %d: %s", text, s, ir_error(ctx));
  tn_ctx_free(ctx);
}
/* The program, which must be a legal one. */
static inline ir_program *ops_checked(tn_ctx *ctx, ir_program *p) {
  const char *wrong = ir_program_verify(ctx, p);
  if (wrong) ir_fail(ctx, TN_EWRONG, "%s", wrong);
  return p;
}

/* f on a text, in a context of its own. */
static inline void ops_each(void (*f)(tn_ctx *ctx, void *arg), const char *text) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, f, (void *)(uintptr_t)text);
  cr_assert_eq(s, TN_OK, "%s: %s", text, tn_error(ctx));
  tn_ctx_free(ctx);
}
#endif
