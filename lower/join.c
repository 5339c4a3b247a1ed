/* join.c — concatenation without copies, see join.h. */
#include "lower/join.h"
#include <string.h>

enum { ALIGNED = 16 }; /* bytes: what kernels on GPUs take for granted of their operands */

typedef struct part {
  ir_value *root; /* whose memory is the part's */
  int64_t offset, bytes;
} part;

/* The value that owns v's memory, if that is v's as a whole and a kernel of a run stores it; else null. */
static ir_value *owner(tn_ctx *ctx, ir_value *v) {
  int64_t bytes = ir_value_bytes(ctx, v), at;
  while (v->def && v->def->group == LW_GROUP_ALIAS && lw_is_alias(ctx, v->def, &at)) {
    if (at) return NULL;
    v = v->def->in[0];
  }
  return v->kind == IR_VALUE_NODE && v->def && !v->data && !v->packed && ir_static(v) && ir_value_bytes(ctx, v) == bytes ? v : NULL;
}

/* Elements from the start of y's memory to v's, if v lies in it as y's elements from `from` on along the axis; else -1. */
static int64_t distance(tn_ctx *ctx, const ir_value *v, const ir_value *y, int axis, int64_t from) {
  ix idx[IR_MAX_RANK], at[IR_MAX_RANK];
  for (int i = 0; i < v->rank; i++) {
    int64_t d = ir_dim(ctx, v, i);
    idx[i] = at[i] = d == 1 ? ix_index(ctx, 0) : ir_var_new(ctx, "a", TN_INDEX, 0, d - 1)->expr;
  }
  at[axis] = ix_addi(ctx, at[axis], from);
  ir_buf *part = ir_buf_new(ctx, "part", v->dtype, v->rank, v->dims, v->layout, IR_GLOBAL), *whole = ir_buf_new(ctx, "whole", y->dtype, y->rank, y->dims, y->layout, IR_GLOBAL);
  int64_t d;
  return ix_const_value(ix_sub(ctx, ir_buf_offset(ctx, whole, at), ir_buf_offset(ctx, part, idx)), &d) ? d : -1;
}

/* The parts of n that are not empty; -1: they do not lie one behind the other in its result, each whole. */
static int parts_of(tn_ctx *ctx, ir_node *n, part *parts) {
  ir_value *y = n->out[0];
  int axis = ir_axis(ctx, n, ir_attr_get_int(n, "axis", 1), y->rank), count = 0;
  int64_t from = 0, end = 0, size = (int64_t)ir_dtype_bytes(y->dtype);
  for (int k = 0; k < n->nin; k++) {
    ir_value *v = n->in[k];
    if (!v || !ir_static(v) || v->dtype != y->dtype) return -1;
    if (!ir_value_elements(ctx, v)) continue;
    part *p = &parts[count++];
    *p = (part){owner(ctx, v), distance(ctx, v, y, axis, from), ir_value_bytes(ctx, v)};
    if (!p->root || p->offset < 0) return -1;
    p->offset *= size;
    if (p->offset < end || p->offset % ALIGNED) return -1;
    end = p->offset + p->bytes;
    from += ir_dim(ctx, v, axis);
  }
  return end == ir_value_bytes(ctx, y) ? count : -1;
}

/* Parts that are in one memory already, as they are in y: y is there, too. Else none may be anywhere; they are in y then. */
static bool place_parts(lw_place *places, ir_value *y, const part *parts, int count) {
  lw_place *first = &places[parts[0].root->id], *own = &places[y->id];
  for (int k = 0; k < count; k++) {
    lw_place *p = &places[parts[k].root->id];
    if (p->base != first->base || (p->base && p->offset - parts[k].offset != first->offset - parts[0].offset)) return false;
    for (int j = 0; j < k; j++)
      if (parts[j].root == parts[k].root) return false;
  }
  if (first->base) {
    if (own->base || first->offset < parts[0].offset) return false; /* y's place was chosen for others */
    *own = (lw_place){first->base, first->offset - parts[0].offset};
    return true;
  }
  for (int k = 0; k < count; k++) places[parts[k].root->id] = (lw_place){y, parts[k].offset};
  return true;
}

/* Whether v is stored, whatever becomes of n, one of its users. */
static bool stored_anyway(const ir_value *v, const ir_node *n) {
  if (v->def->group >= 0 || v->def->group == LW_GROUP_ALIAS) return true;
  for (int i = 0; i < v->nuses; i++)
    if (v->uses[i] != n) return true;
  return false;
}

/* Whether no more is stored with the parts in place than before: they are stored anyway, or else the result is. */
static bool gains(const ir_node *n, const part *parts, int count) {
  const ir_value *y = n->out[0];
  int stored = 0;
  for (int k = 0; k < count; k++) stored += stored_anyway(parts[k].root, n);
  return stored == count || (stored && (y->nuses > 1 || !y->uses[0] || y->uses[0]->op->build));
}

lw_place *lw_join_parts(tn_ctx *ctx, ir_graph *g, bool choose) {
  uint32_t ids = 0;
  int64_t at;
  for (int i = 0; i < g->nvalues; i++)
    if (g->values[i]->id >= ids) ids = g->values[i]->id + 1;
  lw_place *places = IR_NEW_ARRAY(ctx, lw_place, ids + 1);
  for (int i = g->nupdates ? 0 : g->nnodes; i-- > 0;) { /* what contains others first */
    ir_node *n = g->nodes[i];
    if (n->dead || strcmp(n->op->name, "Concat") != 0 || n->op->kind != IR_OP_MOVEMENT || n->group != (choose ? -1 : LW_GROUP_ALIAS)) continue;
    ir_value *y = n->out[0];
    if (n->nin < 2 || !y->nuses || y->packed || y->data || !ir_static(y) || !ir_value_elements(ctx, y)) continue;
    if (!choose && lw_is_alias(ctx, n, &at)) continue; /* of a single part */
    part *parts = IR_NEW_ARRAY(ctx, part, n->nin);
    int count = parts_of(ctx, n, parts);
    bool placed = count > 0 && (!choose || gains(n, parts, count)) && place_parts(places, y, parts, count);
    if (choose && placed) n->group = LW_GROUP_ALIAS;
    if (!choose && !placed) ir_bug(ctx, "%s: its parts are no longer where they were", n->where);
  }
  return places;
}
