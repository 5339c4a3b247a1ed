/* operands.h — what a kernel is measured on: data, guarded memory, a reference, a verdict.
 *
 * Floats are multiples of 1/8 in [-1, 1]: then products and sums of up to 2^18 terms are
 * exact in f32, so that a sum has the same bits in any order and a contraction is compared
 * almost exactly. Bytes are small numbers; wider integers are 0 or 1 (they may be indices).
 *
 * The reference is the unscheduled kernel, compiled. Where that would take too long it
 * computes a sample of the outputs only (first and last iterations of every loop among
 * them); the first candidate that agrees with it is then what the others are compared
 * with in full.
 *
 * Memory is checked by placing it: every buffer ends at a page that cannot be touched,
 * begins behind one, the bytes between are known, and inputs cannot be written.
 */
#ifndef AT_OPERANDS_H
#define AT_OPERANDS_H
#include "codegen/codegen.h"
#include "lower/problem.h"
#include "runtime/threads.h"

typedef void (*at_kernel_fn)(void *const *args, int32_t task, int32_t worker);

/* Code of a candidate and what its call needs. */
typedef struct at_code {
  at_kernel_fn fn;
  int64_t tasks, scratch_bytes;    /* scratch: for as many workers as there are threads */
  cg_kernel_info phases;           /* nphases and phase alone */
  const rt_threads *threads;       /* that share the tasks; null: one runs them all */
  const ir_layout *const *layouts; /* per buffer; differs from the kernel's for constants only */
  const struct at_made *made;      /* per buffer: what takes a constant's place; may be null */
  double error;                    /* lw_schedule_error of its schedule */
} at_code;

/* A constant that is computed from the kernel's own (ir_buf.made). */
typedef struct at_made {
  const char *text; /* its kernel, which tells it from others; null: the constant itself */
  at_code code;
  int64_t bytes;
} at_made;

/* One call, as a program makes it. */
void at_code_run(const at_code *c, void *const *args);

typedef struct at_operands at_operands;

/* Draws data for the kernel. Throws TN_EUNSUPPORTED for kernels that cannot be measured alone
 * (sizes that are not constant). Everything is released with ctx. */
at_operands *at_operands_new(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, uint64_t seed);
/* The kernel that computes the reference: `k` itself, or one that stores a sample of its outputs
 * when `k` runs more than `most` scalar statements. */
const ir_kernel *at_reference_kernel(tn_ctx *ctx, const ir_kernel *k, double most, bool *sampled);
/* Runs the reference. Null, or why it is none: it touched memory that is not its own. */
const char *at_operands_reference(at_operands *o, const at_code *code, bool sampled);
/* The reference as bytes, to be taken over by operands with the same kernel and seed; append writes
 * one output. False when there is none, or when the bytes do not fit. */
bool at_operands_export(const at_operands *o, void (*append)(void *user, const void *p, size_t n), void *user);
bool at_operands_import(at_operands *o, int n, const void *const *p, const size_t *bytes, bool sampled);
/* Runs a candidate on guarded memory. Null, or what is wrong with its results (in ctx). `hook`
 * (tests; may be null) is called with the arguments before (stage 0) and after (1) the run. */
typedef void (*at_run_hook)(void *user, int stage, void *const *args, int nargs);
const char *at_operands_check(at_operands *o, tn_ctx *ctx, const at_code *code, at_run_hook hook, void *user);

/* Memory for timing: `copies` argument lists that share everything but the constants. More than one when these do not fit
 * the first-level cache: then together they take twice the second. Candidates share the memory of what is no constant,
 * and constants of the same layout. */
typedef struct at_arguments {
  int copies;
  int uses;           /* of each copy in a row: 1, or 2 for a kernel whose calls are short */
  void *const **args; /* [copies][nbufs + 1] */
  int nbufs;
  size_t *constant;   /* bytes of each buffer that is one; else 0 */
} at_arguments;
/* Takes the constants of a copy out of all caches. (Of other machines than x86-64 and AArch64 they stay where they are.) */
void at_arguments_cool(const at_arguments *g, int copy);
/* Lives in ctx, which must be freed before the operands' context. Throws TN_ERESOURCE. */
const at_arguments *at_operands_timing(at_operands *o, tn_ctx *ctx, const at_code *code);

/* Called from a signal handler: which buffer's surroundings hold the address: "past the end
 * of b1", in a static buffer; null when none. */
const char *at_guard_at(const void *address);
/* Elements of rank-many extents `shape` of `size` bytes each, between row-major and a layout
 * (null: also row-major). Padding becomes zero. */
void at_pack(tn_ctx *ctx, const ir_layout *l, int rank, const int64_t *shape, size_t size, const void *dense, void *packed);
void at_unpack(tn_ctx *ctx, const ir_layout *l, int rank, const int64_t *shape, size_t size, const void *packed, void *dense);
/* Bytes of memory in a layout. */
int64_t at_layout_bytes(const ir_layout *l, int rank, const int64_t *shape, size_t size);
#endif
