/* api_grad.c — gradients: one node tenon:Gradient, which compilation turns into others. */
#include "frontend/eager.h"
#include <stdio.h>

typedef struct room_args {
  int count;
  tn_tensor **room;
} room_args;
static void make_room(tn_ctx *ctx, void *arg) {
  room_args *a = arg;
  a->room = IR_NEW_ARRAY(ctx, tn_tensor *, a->count);
}

tn_status tn_gradient(tn_graph *g, tn_tensor *y, tn_tensor *seed, int n, tn_tensor *const xs[], tn_tensor *dxs[]) {
  if (!fe_alive(g)) return TN_EUSAGE;
  fe_mark m = fe_enter(g, "tn_gradient");
  room_args a = {n + 2, NULL};
  tn_status status = n < 1 || !xs || !dxs ? fe_error(g, TN_EUSAGE, "there is nothing to differentiate by") : fe_protect(g, make_room, &a);
  if (status == TN_OK) {
    a.room[0] = y;
    a.room[1] = seed;
    for (int i = 0; i < n; i++) a.room[i + 2] = xs[i];
    char attrs[48] = "";
    if (g->memory) snprintf(attrs, sizeof attrs, "memory = %lld", (long long)g->memory);
    status = fe_node(g, NULL, "tenon:Gradient", *attrs ? attrs : NULL, n + 2, a.room, n, dxs);
  }
  if (status == TN_OK) fe_eager_keep(g, n, dxs);
  fe_leave(g, &m, status == TN_OK ? dxs[0] : NULL);
  return status;
}

void tn_gradient_memory(tn_graph *g, int64_t bytes) {
  if (fe_alive(g)) g->memory = bytes < 0 ? 0 : bytes;
}

tn_tensor *tn_stop_gradient(tn_graph *g, tn_tensor *x) {
  if (!fe_alive(g)) return NULL;
  fe_mark m = fe_enter(g, "tn_stop_gradient");
  return fe_leave(g, &m, fe_op(g, NULL, "tenon:StopGradient", NULL, 1, x));
}

tn_tensor *tn_checkpoint(tn_graph *g, tn_tensor *x) {
  if (!g) return NULL;
  fe_mark m = fe_enter(g, "tn_checkpoint");
  return fe_leave(g, &m, fe_op(g, NULL, "tenon:Checkpoint", NULL, 1, x));
}
