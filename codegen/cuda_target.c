/* cuda_target.c — the GPUs that code is made for. */
#include "codegen/cuda.h"
#include <string.h>

static const cu_target rows[] = {
    {"sm_80", 80, false, 166912, 65536, 108},
    {"sm_86", 86, false, 101376, 65536, 84},
    {"sm_89", 89, false, 101376, 65536, 128},
    {"sm_90a", 90, true, 232448, 65536, 132},
};

const cu_target *cu_target_at(int i) { return i < IR_COUNT(rows) ? &rows[i] : NULL; }

const cu_target *cu_target_find(tn_ctx *ctx, const char *name) {
  ir_text t = {.ctx = ctx};
  for (int i = 0; i < IR_COUNT(rows); i++) {
    if (strcmp(rows[i].name, name) == 0) return &rows[i];
    ir_put(&t, "%s%s", i ? ", " : "", rows[i].name);
  }
  ir_fail(ctx, TN_EUSAGE, "no GPU architecture '%s'; there are: %s", name, t.s);
}
