/* tpu_contract.h — contractions on the matrix unit.
 *
 *   for outer..: for rows (z, y, x): for column: { acc = 0; for steps (c, t, r, s): acc += moving * resting; rest }
 *
 * One operand rests in the array as tiles of K x N, the other moves through it by window addressing. Loops of
 * the moving operand alone are rows, one of the resting operand is the column, reductions are
 * steps in the order of the kernel; loops of both (batches, groups) and those left over run outside.
 */
#ifndef TPU_CONTRACT_H
#define TPU_CONTRACT_H
#include "codegen/tpu_lower.h"

enum { CT_RED = 4 };

typedef struct ct_operand {
  ix load;
  tn_dtype t;
  int64_t zero;
  tc_mem *m;
  /* by loop: those of the nest, then the reductions */
  tc_affine dim[IR_MAX_RANK];     /* physical indices */
  int64_t stride[IR_MAX_RANK];    /* elements, of the whole buffer where it lies */
  bool checked[IR_MAX_RANK];      /* the guard keeps this index in bounds */
  int64_t step[TC_LANES];         /* elements in the whole buffer */
  bool uses[TC_LANES];
} ct_operand;

typedef struct ct_match {
  const tc_nest *nest;
  ir_buf *acc;
  const ir_stmt *rest;            /* what follows the reduction; null: nothing */
  int nred;
  const ir_stmt *red[CT_RED];
  int64_t red_lo[CT_RED], red_n[CT_RED];
  ix guard;
  ct_operand a, b;
  double row_cycles;
} ct_match;

typedef struct ct_plan { /* loops by their places; -1: none */
  const ct_operand *moving, *resting;
  int row[3], step[CT_RED];       /* z y x; c, then the taps t r s of these axes */
  bool channels_last;             /* steps in the order t r s c, else c t r s */
  int column, column2;            /* the second runs around the first and goes on where that ends */
  int nouter, outer[TC_LANES];
  int axis_dim[3], axis_row[3], axis_step[3]; /* of axes that are checked: index, loops; -1: none */
  int64_t M, N, K, batch;
} ct_plan;

bool ct_match_nest(tc *c, const tc_nest *nest, ct_match *x);
/* Cycles of the array for batch products M x N x p->K, their tiles fetched from a DRAM that `cores` share or there already. */
double ct_cycles(const tc *c, const ct_match *x, const ct_plan *p, double M, double N, double batch, bool fetched, int cores);
/* False: the moving operand's loops do not fit a window. */
bool ct_plan_window(const ct_match *x, bool swapped, ct_plan *p);

/* Steps of the resting operand as axes, outermost first, those joined that are one in memory; tiles of at most `most` steps
 * are boxes of them that are runs of their order, one iteration of the outermost axis. */
typedef struct ct_steps {
  int64_t n[CT_RED], step[CT_RED], part[CT_RED]; /* iterations; elements apart; iterations of a tile */
} ct_steps;
ct_steps ct_steps_of(const ct_match *x, const ct_operand *w, int64_t most);
#endif
