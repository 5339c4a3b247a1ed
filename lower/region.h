/* region.h — control flow that stays: nodes whose graphs become instructions of the program, each compiled by itself.
 *
 *   tenon:Repeat  in: count or none, carried.., captured..      out: carried.., what they are behind the last turn
 *                 body: carried.., captured.. -> updates of the carried ones, which the program keeps in place.
 *                 With a count so many turns, else as long as the first carried one, a bool, holds.
 *                 What a loop collects, a slice a turn, is carried too (tenon:Collect), and begins as anything: it has no operand.
 *   tenon:Branch  in: condition, captured..                     then, else: captured.. -> as many outputs of the same types
 *
 * lower/program.c puts their programs into the one around them: kernels by number, memory of a body as one piece
 * of the arena, alive while its instruction is. */
#ifndef LW_REGION_H
#define LW_REGION_H
#include "lower/control.h"
#include "lower/lower.h"

static inline bool lw_is_region(const ir_node *n) { return n->op->kind == IR_OP_CONTROL && !n->op->expand; }
bool lw_is_repeat(const ir_node *n);
/* Of a Repeat: how many values it carries. */
int lw_carried(const ir_node *n);

/* Loop n from turn `done` on: cond, whether there is such a turn (null: there is), states as they are then. What it collects (done is 0
 * then) has room for the most turns that are known, and is Sized where a run finds how many they were. Throws TN_EUNSUPPORTED for what a
 * loop of unknown length cannot do. */
void lw_keep_loop(ir_graph *g, ir_node *n, ir_graph *body, int64_t done, ir_value *cond, ir_value *const *states);
/* Scan n over `length` elements (-1: as many as `sized` says, at most `most`) as a loop. axis: of the n->nin - states sequences. */
void lw_keep_scan(ir_graph *g, ir_node *n, ir_graph *body, int states, const int64_t *axis, int64_t length, ir_value *sized);
void lw_keep_if(ir_graph *g, ir_node *n, ir_graph *yes, ir_graph *no);
/* Whether computing a branch for nothing would take long: products, windows, loops. */
bool lw_is_heavy(const ir_graph *body);
/* Whether the body of a loop never ends it. */
bool lw_goes_on(const ir_graph *body);

typedef struct lw_region { /* the programs of a region's graphs */
  const ir_node *n;
  int nprograms;
  ir_program *programs[2];
} lw_region;
lw_region *lw_region_compile(tn_ctx *ctx, const ir_node *n, const lw_options *o);
/* Of the arena, while it runs. */
int64_t lw_region_bytes(const lw_region *r);
/* Appends it to p, the section that packs its weights too: in[k] and out[k] are p's slots of the node's operands (-1: none) and
 * results, room a slot of lw_region_bytes, kernel() gives p's number of a kernel. */
void lw_region_put(tn_ctx *ctx, ir_program *p, const lw_region *r, const int *in, const int *out, int room, int (*kernel)(void *user, const ir_program_kernel *k), void *user);
#endif
