/* import.h — ONNX models become graphs. */
#ifndef FE_IMPORT_H
#define FE_IMPORT_H
#include "frontend/onnx_model.h"
#include "ir/ir.h"

/* One thing that stands in the way of a model, as `tenon check` lists them. */
typedef struct fe_problem {
  const char *where; /* "file: node 'name' (Op)" */
  const char *op;    /* "" when it is not about a node */
  int opset;
  tn_status status;  /* TN_EUNSUPPORTED or TN_EINPUT */
  const char *reason;
} fe_problem;

typedef struct fe_problems {
  int n;
  fe_problem *items;
} fe_problems;

/* The graph of a model, not yet inferred; symbolic dimensions stay symbolic. Large
 * constants are mapped, not copied: they may lie at any address. With `problems`,
 * nodes that cannot be imported are noted there and skipped (their outputs have no type),
 * and the graph serves only to look further; without, the first one throws. */
ir_graph *fe_import(tn_ctx *ctx, const char *path, fe_problems *problems);
ir_graph *fe_import_model(tn_ctx *ctx, const fe_onnx *model, fe_problems *problems);

/* Infers every node of a graph that was imported with `problems`, and notes what does not fit or
 * is not supported; nodes that read what could not be inferred are passed over. Symbolic dimensions
 * may stay (`open`: some do, or values that decide shapes are missing, so that a node which needs such
 * a value is no problem). The graph is of no other use afterwards. frontend/import_check.c */
void fe_check_graph(tn_ctx *ctx, ir_graph *g, bool open, fe_problems *problems);

/* Inputs whose values decide shapes inside the graph (the shape of a Reshape, the axes of a
 * ReduceSum, ...), so that they must be known before it can be compiled; one flag per input. The
 * graph must be in topological order. frontend/import_values.c */
unsigned fe_shape_operands(const ir_node *n); /* bit k: the value of operand k decides shapes */
bool *fe_shape_inputs(tn_ctx *ctx, const ir_graph *g);
/* Every node sees the constant `data` in place of input k, which has static extents. The input
 * stays, so that the others keep their numbers, but nothing reads it. */
void fe_freeze_input(tn_ctx *ctx, ir_graph *g, int k, const void *data);
#endif
