/* fold.c — see fold.h. */
#include "lower/fold.h"
#include "lower/build_internal.h"

static bool store_all(void *user, const ir_value *v) { return (void)user, (void)v, true; }

bool lw_fold_node(tn_ctx *ctx, ir_node *n, int64_t max_elements) {
  if (!n->op->value && !n->op->build) return false;
  for (int i = 0; i < n->nin; i++)
    if (n->in[i] && !n->in[i]->data) return false;
  int64_t elements = 0;
  for (int i = 0; i < n->nout; i++) {
    if (!n->out[i]) continue;
    if (!ir_static(n->out[i])) return false;
    int64_t e = ir_value_elements(ctx, n->out[i]);
    if (e > max_elements || (elements += e) > max_elements) return false;
  }
  int group = n->group, nuses[64];
  n->group = -1;
  for (int i = 0; i < n->nout && i < 64; i++)
    if (n->out[i]) {
      nuses[i] = n->out[i]->nuses;
      if (!nuses[i]) n->out[i]->nuses = 1; /* wanted, whoever asks */
    }
  lw_kernel k = lw_build_group(ctx, "fold", n->op->build ? n : NULL, -1, 1, &n, true, store_all, NULL);
  void **args = IR_NEW_ARRAY(ctx, void *, k.nvalues + 1);
  for (int i = 0; i < k.nvalues; i++) {
    ir_value *v = k.values[i];
    args[i] = v->def == n ? ir_alloc(ctx, (size_t)ir_value_bytes(ctx, v)) : (void *)(uintptr_t)v->data;
  }
  ir_interp(ctx, k.kernel, args, NULL);
  for (int i = 0; i < k.nvalues; i++)
    if (k.values[i]->def == n) {
      k.values[i]->data = args[i];
      k.values[i]->data_bytes = ir_value_bytes(ctx, k.values[i]);
    }
  for (int i = 0; i < n->nout && i < 64; i++)
    if (n->out[i]) {
      n->out[i]->nuses = nuses[i];
      if (!n->out[i]->data) { /* an empty tensor has no store */
        n->out[i]->data = ir_alloc(ctx, 1);
        n->out[i]->data_bytes = 0;
      }
    }
  n->group = group;
  return true;
}

bool lw_eval_node(tn_ctx *ctx, ir_node *n) { return lw_fold_node(ctx, n, INT64_MAX); }
