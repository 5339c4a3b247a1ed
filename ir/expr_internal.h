/* expr_internal.h — shared by expr.c and index.c. */
#ifndef IR_EXPR_INTERNAL_H
#define IR_EXPR_INTERNAL_H
#include "ir/ctx_internal.h"
#include "ir/ir.h"

enum { IX_MAX_ARGS = IR_MAX_RANK, IX_MAX_TERMS = 128 };

ix ix_intern(tn_ctx *ctx, ir_opcode op, tn_dtype t, int64_t imm, int nargs, const ix *args);
/* Result of an op on index operands in canonical form; null: no rule, intern it. */
ix ix_simplify_index(tn_ctx *ctx, ir_opcode op, const ix *args);
void ix_set_range(struct tn_expr *e);
int ix_compare(ix a, ix b);
#endif
