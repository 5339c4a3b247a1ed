/* sizes.h — models whose sizes are known when they run.
 *
 *   graph ── for each representative: its sizes bound, passes, schedules ── programs ── joined into one
 *
 * The sizes of a joined program are its dims. A dimension of listed sizes picks the program made for its value. A
 * batch, from lo to hi, goes by pieces: of 13 with programs for 1, 4 and 16, for instance, 4 + 4 + 4 and 4 again, the
 * last one over three that are done already. Which pieces, was decided when the program was made: a run compares and
 * counts, and neither compiles nor tunes. That outputs of a batch depend on their own part of the inputs is proven
 * for every kernel (lw_parts_refusal), or the range is refused.
 *
 * Kernels, constants and packed weights that programs have in common are there once.
 */
#ifndef LW_SIZES_H
#define LW_SIZES_H
#include "lower/lower.h"

typedef struct lw_dim {
  const char *name;
  int64_t lo, hi;        /* 1 <= lo */
  bool range;            /* anything from lo to hi, by pieces of the sizes; else the sizes alone */
  bool proposed;         /* of a range: sizes that gain nothing over pieces of smaller ones are left out */
  int n;
  const int64_t *sizes;  /* what programs are made for; ascending; of a range the first is lo */
} lw_dim;

/* A range whose sizes nobody names: proposed are lo, powers of two up to 8, that times powers of four. */
lw_dim lw_dim_range(tn_ctx *ctx, const char *name, int64_t lo, int64_t hi);
/* Whether a program for this one is the same as lw_compile of one size. */
static inline bool lw_dim_fixed(const lw_dim *d) { return !d->range && d->n == 1; }

/* As lw_compile; g stays as it is. Throws TN_EUSAGE for a range that is no batch, naming the kernel that says so. */
ir_program *lw_compile_sizes(tn_ctx *ctx, const ir_graph *g, int n, const lw_dim *dims, const lw_options *o);

/* Why the run section does not treat `parts` equal parts of its inputs apart, null: it does. in[i]: input i is cut,
 * along its first axis that is not 1; out[i]: set for outputs that are. By the unscheduled kernels. lower/parts.c */
const char *lw_parts_refusal(tn_ctx *ctx, const ir_program *p, int64_t parts, const bool *in, bool *out);
#endif
