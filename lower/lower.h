/* lower.h — graph to program.
 *
 *   graph ── passes (infer, expand, canon, layout, ...) ── fuse ── kernels ── schedule ── program
 */
#ifndef LW_LOWER_H
#define LW_LOWER_H
#include "codegen/target.h"
#include "ir/ir.h"

typedef enum lw_layout_choice { LW_LAYOUT_AUTO, LW_LAYOUT_NCHW, LW_LAYOUT_NHWC, LW_LAYOUT_NCHWC } lw_layout_choice;

/* A root and what is computed with it: "behind", elementwise nodes where it stores, or "before", where a reduction reads. */
typedef struct lw_group {
  const char *hash; /* 16 hexadecimal digits of the text */
  const char *text; /* "behind" or "before", then ops with types and attributes */
  double elements;  /* of the root's result */
} lw_group;

typedef struct lw_options {
  const cg_target *target;    /* null: schedules and layouts for no machine in particular: none */
  bool unscheduled;           /* every kernel as its op wrote it */
  lw_layout_choice layout;
  bool starts;                /* states get their first contents by an init section, not by whoever runs the program */

  double accuracy;            /* error that the whole model may gain by faster algorithms, relative to its largest output; 0: strict, none */
  bool attention_apart;       /* for GPUs: attention is one kernel where they have tiles for it; else where it is of f32 */
  bool byte_products;         /* products of 8-bit floats take them as they are (narrow.h): for GPUs */
  bool free_io;               /* inputs and outputs may get another layout: for timing a kernel alone */
  /* The schedule of a kernel: text of steps; null or returning null: the default one. */
  const char *(*schedule)(void *user, tn_ctx *ctx, const ir_kernel *k);
  void *user;
  /* Whether a group is to be cut there: two kernels. Null: none. */
  bool (*cut)(void *cut_user, tn_ctx *ctx, const lw_group *group);
  void *cut_user;
  /* Called after each pass with its name, for dumps and timing; may be null. */
  void (*after_pass)(void *user, tn_ctx *ctx, const char *pass, const ir_graph *g, double seconds);
  void *after_user;
} lw_options;

/* Runs the passes on g (in place) and lowers it. Every dimension must be a number
 * (lw_bind_dims first). Throws with file, node and reason. */
ir_program *lw_compile(tn_ctx *ctx, ir_graph *g, const lw_options *options);

/* Gives symbolic dimensions of the inputs their sizes. `names[i]` becomes sizes[i];
 * throws TN_EUSAGE naming every dimension that is left without a size. */
void lw_bind_dims(tn_ctx *ctx, ir_graph *g, int n, const char *const *names, const int64_t *sizes);

/* One pass: rewrites the graph in place. */
typedef struct lw_pass {
  const char *name;
  void (*run)(tn_ctx *ctx, ir_graph *g, const lw_options *options);
  bool inference_only; /* must not run on a graph that will be differentiated */
  const char *about;
} lw_pass;
extern const lw_pass lw_passes[]; /* ended by a null name */
void lw_pass_infer(tn_ctx *ctx, ir_graph *g, const lw_options *options);  /* types, shapes, small constants, composites */
void lw_pass_canon(tn_ctx *ctx, ir_graph *g, const lw_options *options);  /* BatchNorm into convolution, ... */
/* Parts of a Concat, or of one inside another, that are one kernel: each element picks among them, and LLVM takes a time that grows with their square. */
enum { LW_MAX_PARTS = 128 };
/* A chain of nodes that ends in the product n becomes the activation that it is. Uses must be known. */
void lw_activation(ir_graph *g, ir_node *n);
/* Convolution n as a 1x1 convolution over its windows, written out first, where that should be faster: tiles over
 * narrow rows lose more than the copy takes. Part of canon, for a target, on f32 with constant weights. */
void lw_unfold(tn_ctx *ctx, ir_graph *g, ir_node *n, const lw_options *options);
void lw_pass_quantised(tn_ctx *ctx, ir_graph *g, const lw_options *options); /* products of quantised tensors in integers */
void lw_pass_fourier(tn_ctx *ctx, ir_graph *g, const lw_options *options); /* transforms as products with matrices: fourier.c */
void lw_pass_dce(tn_ctx *ctx, ir_graph *g, const lw_options *options);
void lw_pass_cse(tn_ctx *ctx, ir_graph *g, const lw_options *options);
void lw_pass_layout(tn_ctx *ctx, ir_graph *g, const lw_options *options);
void lw_pass_attend(tn_ctx *ctx, ir_graph *g, const lw_options *options); /* attention as one kernel: attend.h */
/* Sets `packed` of all values: a constant, or computed from constants alone. Nodes stand in order (ir_graph_sort). */
void lw_mark_packed(ir_graph *g);
void lw_pass_fuse(tn_ctx *ctx, ir_graph *g, const lw_options *options);   /* gives every node its group */

/* node->group of a node whose output is the memory of its input, seen differently. */
enum { LW_GROUP_ALIAS = -2 };
/* Whether n only renames memory: output offset = input offset + constant. */
bool lw_is_alias(tn_ctx *ctx, ir_node *n, int64_t *element_offset);
/* Offsets for buffers alive in [first, last] (instruction numbers, both included), bytes
 * multiples of 64, such that those alive together do not overlap; returns the total.
 * Greedy by size; `*peak` is the lower bound (most bytes alive at once). lower/plan.c */
typedef struct lw_lifetime {
  int first, last;
  int64_t bytes;
  int64_t offset; /* result */
} lw_lifetime;
int64_t lw_plan_memory(tn_ctx *ctx, int n, lw_lifetime *buffers, int64_t *peak);

ir_program *lw_make_program(tn_ctx *ctx, ir_graph *g, const lw_options *options);

/* Applies the schedules of a program that was read from text (perhaps edited by hand): fills
 * `lowered`. Throws TN_EINPUT naming the kernel and the step that is refused, or when a
 * schedule asks for another layout of a slot than the program packs. */
void lw_apply_schedules(tn_ctx *ctx, ir_program *p);

/* Error that a model may gain where nobody says otherwise. */
#define LW_ACCURACY 1e-4
/* Text of the default schedule of a kernel on a target; "" when there is nothing to gain.
 * `accuracy` as in lw_options. */
const char *lw_default_schedule(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, double accuracy);

/* What a tuner may vary in it; 0 leaves the rule's own choice. A variant that the kernel
 * does not allow comes out as some other legal schedule (compare texts). */
typedef struct lw_tunables {
  int mr, nr;   /* contractions: rows and vectors of the register tile */
  int ku;       /* steps of the innermost reduction that are unrolled; 1: none */
  int order;    /* contractions: 1 rows outside vectors, 2 vectors outside rows, 3 the same, a panel of a B at run time copied by its first tile */
  int kc;       /* matrix products: steps of a sum that a pass through the registers takes */
  int mb;       /* matrix products: tiles of rows in a block (MC = mb * mr) */
  int group;    /* contractions: panels of vectors that all rows pass over together (NC = group * nr vectors) */
  int rows;     /* contractions: 1 a tile's rows are copied before use, 2 they are not */
  int ahead;    /* contractions: panels of constants are asked for so many before their turn, less 1; 1: never */
  int taps;     /* contractions over a window: loops of taps that are unrolled, innermost first */
  int inner;    /* contractions over a window: 1 channels inside the taps, 2 taps inside the channels */
  int height;   /* contractions over a window: rows of the picture that pass over a panel together */
  int parts;    /* matrix products: parts of a sum that are tasks of their own (split-K); 1: none */
  int axis;     /* 2, 3, ...: this loop of the outermost ones comes first, so that its iterations are what threads share out */
  int lanes;    /* of vector loops, in elements (also beyond one register) */
  int unfused;  /* 1: neighbouring row loops are not joined */
  int winograd; /* 3x3 convolutions: 2, 4, 6 by tiles of so many outputs; 1 directly */
  int wtiles;   /* Winograd: tiles of a group */
  int wparts;   /* Winograd: parts of the output channels */
  double accuracy; /* no variable: what the rule may choose, as in lw_options */
} lw_tunables;
/* Whether a register tile needs no more than `regs` registers: its sums, and of one step the vectors and a row; over a
 * window also the rows and a vector. */
bool lw_tile_fits(int64_t mr, int64_t nr, int64_t regs, bool window);
/* `got`: what became of them, the rule's own choices included; 0 where they mean nothing. `scheduled`: the kernel
 * with the steps done. Both may be null. */
const char *lw_schedule_with(tn_ctx *ctx, const ir_kernel *k, const cg_target *t, const lw_tunables *u, lw_tunables *got, const ir_kernel **scheduled);
/* Iterations of the parallel loops outside, 1: there are none. */
int64_t lw_tasks_of(const ir_kernel *k);
#endif
