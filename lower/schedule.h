/* schedule.h — schedules: lists of named steps that rewrite a kernel.
 *
 * A schedule is text, one step a line ('#' comments). Each step is a rewrite with a
 * legality check of its own; a refused step leaves the kernel as it was and says why.
 * A step never changes what the kernel computes, except that reductions may be summed
 * in another order. Steps name loops; a step that makes loops names them.
 *
 *   algorithm winograd m tiles panel block parts
 *                           a 3x3 convolution of stride 1, not yet scheduled, as F(m x m, 3 x 3): m of 2, 4, 6;
 *                           groups of so many tiles, panels of output channels, blocks of channels (vectors),
 *                           and parts of the output channels that are tasks of their own. The constant
 *                           operand becomes the transformed weights (ir_buf.made). Rounds differently:
 *                           lw_schedule_error(). Loops: schedule_winograd.c
 *   algorithm attention rows keys lanes group
 *                           softmax(scores of q k') v, a row of scores a query, as blocks of so many queries (in
 *                           groups, a few vectors each) and keys, what is known of the blocks before kept aside: softmax in
 *                           one pass. Loops: schedule_attention.c
 *   algorithm winograd_weights m cblock kblock lanes
 *                           the gradient of such a convolution's weights by the adjoint: in blocks of input and output
 *                           channels, so many channels at once. Both operands become their transforms (ir_buf.made).
 *                           Loops: schedule_winograd_weights.c
 *   split v F -> o i        for v in 0..N          for o in 0..ceil(N/F): for i in 0..F:
 *                             B(v)                   if o*F + i < N: B(o*F + i)
 *                           (no guard where F divides N)
 *   fuse a b -> f           for a: for b: B(a,b)   for f: B(f / Nb, f mod Nb)
 *   reorder a b c ...       the loops, perfectly nested, in this order from outside
 *   unroll v | vectorize v | parallel v | serial v        the loop's kind
 *   peel v F L              the first F and last L iterations apart: their loops get the
 *                           suffixes .a and .b (.a2, ... when taken); one iteration
 *                           alone is no loop any more
 *   narrow v                for v: if g(v): B      for v in the part where g holds: B
 *   tail v                  for v in l..h: if c*v + e < N: B   for v in l..min(h, S): B
 *                                                  if S < h: if c*S + e < N: B(S)
 *                                                  where S is the first v for which an e of the inner loops
 *                                                  breaks the guard, and no later one keeps it (the copy's
 *                                                  loops have the ending .b)
 *   distribute a b ...      for a: for b: { alloc x; S1; for k: S2; S3 }
 *                             -> alloc x[a, b]; for a,b: S1; for k: for a,b: S2; for a,b: S3
 *                           (the copies for S1 and S3 have the suffixes .i0, .i1, ...)
 *   raise k a b ...         for a: for b: { alloc x; S1; for k: S2; S3 }
 *                             -> alloc x[a, b]; for k: for a,b: { if k is the first: S1; S2; if k is the last: S3 }
 *                           (k has a constant number of steps, at least one)
 *   rfactor k F -> o i      for k: acc op= e(k)    part[F]: for o: for i: part[i] op= e(o*F + i);
 *                                                  for i.r: acc op= part[i.r]
 *   chunk k F -> o i        for k: acc op= e(k)    for o: { alloc part; part = identity; for i: part op= e(o*F + i);
 *                                                           acc op= part }
 *   splitk k P -> p         for m: { acc = z;          alloc part[P, M]; for p: for m: part[p, m] = e summed over a P-th of k;
 *                             for k: acc op= e; S }  for m.s: { acc = z; for p.s: acc op= part[p.s, m.s]; S }
 *                           (P divides k's extent; the loops outside k are serial. As tasks: one nest after the other)
 *   layout buf "steps"      another memory layout of a constant operand, or of a copy made by cache
 *   cache B v -> P          for v: ... B[e] ...    for v: alloc P; P[c] = B[start + c] for the part of B
 *                                                  that an iteration of v reads; ... P[e - start] ...
 *                           (the copying loops are P.0, P.1, ...; axes that a fused loop walks as one, e / D
                           and e mod D, are one in P)
 *   turn B v a -> P         the same, with axis a of B innermost in P's memory
 *   fill P w k -> c         a copy P that cache made is made by its first use instead: for w: { for k: S(P) } ->
 *                           for w: { if this is the first iteration of w, and of the loops down from P's home that
 *                           P's elements do not depend on: { for k: { P[..] = B[..] for what this k uses; S(B) } }
 *                           else { for k: S(P) } } (the loops of the first version have the ending .f, the copying ones
 *                           are c.0, ..; refused where a later iteration could use more than the first)
 *   prefetch B v D w -> p   for v: for w: S        for v: for w: { ask for a part of what iteration v + D reads of B; S }
 *                                                  (w inside v, with other loops between or not: the parts of all its
                                                  iterations cover all; w = v: all of it each time; B: an operand or a copy;
                                                  of what is read the last line again where there is no other: no conditions)
 *   muladd                  acc = fma(a, b, acc)    acc = a*b + acc, rounded twice: for machines without fma
 *   tensorize atom v        marks the nest at v as a tile statement; checks it is the atom's:
 *                           fma: loops around acc[..] = fma(a, b, acc[..]);
 *                           dot: for v in 0..2 or 0..4: acc += i32(a[.. v]) * i32(b[.. v]) of bytes or words that
 *                           lie side by side, or that a table picks (ir/picked.h): one instruction on many machines
 */
#ifndef LW_SCHEDULE_H
#define LW_SCHEDULE_H
#include "ir/ir.h"

/* The kernel after all steps. On a refused step: null, with *reason = "line N: step: why"
 * (in the arena). Malformed text throws TN_EINPUT. */
const ir_kernel *lw_schedule_apply(tn_ctx *ctx, const ir_kernel *k, const char *text, const char **reason);
/* The kernel that computes buffer b, which a schedule put in a constant's place (b->made), in b's layout. */
const ir_kernel *lw_made_kernel(tn_ctx *ctx, const ir_buf *b);
/* What a schedule may change of a result of kernel k beyond the order of sums: largest error / largest output,
 * as its algorithm states; 0 for most, and for integers. */
double lw_schedule_error(tn_ctx *ctx, const ir_kernel *k, const char *text);
/* The share of a model's accuracy that one kernel may use: errors of layers add up like a random
 * walk, and later layers dampen them. */
static inline double lw_accuracy_of_kernel(double accuracy) { return accuracy / 2; }
/* The text in canonical spacing, without comments; throws when malformed. */
const char *lw_schedule_canonical(tn_ctx *ctx, const char *text);
/* A schedule of k in the names of k's canonical text (v0, b1, ...), as it is kept: it fits every kernel of
 * that text. And such a text in k's own names. Names that steps make stay, unless the other kernel has them
 * already; a text that speaks of no loop or buffer of k under the first names stays as it is. */
const char *lw_schedule_unnamed(tn_ctx *ctx, const ir_kernel *k, const char *text);
const char *lw_schedule_named(tn_ctx *ctx, const ir_kernel *k, const char *text);

/* How the iterations of a loop depend on each other. */
typedef enum lw_dependence {
  LW_PARALLEL,  /* any order, at the same time */
  LW_REDUCTION, /* any order: they meet in updates of one accumulator */
  LW_SERIAL     /* this order */
} lw_dependence;
/* `outer`: loops around it within which other iterations matter (may be null). `why` says
 * what makes it serial. */
lw_dependence lw_loop_dependence(tn_ctx *ctx, const ir_stmt *loop, const char **why);
/* All step names, null-terminated, for help and tests. */
extern const char *const lw_schedule_steps[];
#endif
