/* import_check.c — every problem of a model, not only the first: each node is inferred under
 * protection; what depends on a node that failed is left out. */
#include "frontend/import.h"
#include "lower/build.h"
#include "lower/extent.h"
#include "lower/fold.h"
#include "lower/list.h"
#include <string.h>

enum { FOLD_LIMIT = 2048, MAX_ROUNDS = 64 };

typedef struct step {
  ir_graph *g;
  ir_node *n;
} step;

static void one_node(tn_ctx *ctx, void *arg) {
  step *s = arg;
  ir_node *n = s->n;
  if (n->nout && lw_is_list(n->out[0])) return;
  if (lw_reads_sized(n)) {
    lw_move_sized(ctx, s->g, n);
    return;
  }
  if (n->op->kind == IR_OP_CONTROL && n->op->expand) { /* what is inside becomes part of the graph, with types */
    int first = s->g->nnodes;
    n->op->expand(s->g, n);
    lw_settle(ctx, s->g, first);
    return;
  }
  ir_infer(ctx, n);
  if (n->op->expand && !n->op->value && !n->op->build) {
    n->op->expand(s->g, n);
    return;
  }
  if (lw_fold_node(ctx, n, FOLD_LIMIT)) n->dead = true; /* shape arithmetic: its value is known now */
}

static bool typed(const ir_node *n) {
  for (int k = 0; k < n->nin; k++)
    if (n->in[k] && !lw_is_list(n->in[k]) && (n->in[k]->dtype == TN_NONE || n->in[k]->rank < 0)) return false;
  return true;
}

/* Whether a value that decides the node's shape is not known. */
static bool needs_value(const ir_node *n) {
  unsigned operands = fe_shape_operands(n);
  for (int k = 0; k < n->nin && k < 32; k++)
    if (n->in[k] && operands >> k & 1 && !n->in[k]->data) return true;
  return false;
}

static void note(tn_ctx *ctx, fe_problems *list, const char *where, const char *op, int opset, tn_status status) {
  const char *reason = ir_strdup(ctx, ir_error(ctx));
  size_t n = strlen(where);
  if (strncmp(reason, where, n) == 0 && reason[n] == ':') reason += n + 2;
  for (int i = 0; i < list->n; i++)
    if (strcmp(list->items[i].where, where) == 0 && strcmp(list->items[i].reason, reason) == 0) return;
  fe_problem p = {where, op, opset, status, reason};
  IR_PUSH(ctx, list->items, list->n, p);
}

static void sort(tn_ctx *ctx, void *arg) {
  (void)ctx;
  ir_graph_sort(arg);
}

void fe_check_graph(tn_ctx *ctx, ir_graph *g, bool open, fe_problems *problems) {
  tn_status s = ir_protect(ctx, sort, g);
  if (s != TN_OK) { /* a cycle: nothing can be said about the nodes */
    note(ctx, problems, g->file ? g->file : g->name, "", 0, s);
    return;
  }
  int done = 0;
  for (int round = 0; round < MAX_ROUNDS && done < g->nnodes; round++) {
    int count = g->nnodes; /* expand() appends: those are looked at in the next round */
    for (; done < count; done++) {
      ir_node *n = g->nodes[done];
      if (n->dead || !typed(n)) continue;
      step st = {g, n};
      s = ir_protect(ctx, one_node, &st);
      if (s == TN_OK) continue;
      if (s == TN_ERESOURCE || s == TN_EINTERNAL) ir_fail(ctx, s, "%s", ir_strdup(ctx, ir_error(ctx)));
      bool size_missing = s == TN_EUSAGE || (open && s == TN_EUNSUPPORTED && needs_value(n));
      if (!size_missing) note(ctx, problems, n->where, n->op->name, n->opset, s);
      for (int k = 0; k < n->nout; k++)
        if (n->out[k]) n->out[k]->dtype = TN_NONE, n->out[k]->rank = -1;
    }
  }
}
