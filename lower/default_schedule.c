/* default_schedule.c — the schedule of a kernel that nobody has tuned. */
#include "lower/lower.h"

const char *lw_default_schedule(tn_ctx *ctx, const ir_kernel *k, const cg_target *t) {
  (void)ctx, (void)k, (void)t;
  return "";
}
