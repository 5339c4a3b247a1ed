/* inputs.c — see inputs.h. */
#include "frontend/inputs.h"
#include "frontend/npy.h"
#include "ir/interp.h"
#include <string.h>
#include <unistd.h>

/* ---- random numbers ---- */

static uint64_t random_bits(uint64_t counter) {
  uint64_t z = (counter + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void fe_random(void *out, tn_dtype t, int64_t count, uint64_t seed, int input) {
  uint64_t c = (seed << 56) + ((uint64_t)input << 40);
  for (int64_t i = 0; i < count; i++) {
    uint64_t z = random_bits(c + (uint64_t)i);
    switch (t) {
    case TN_F32: ((float *)out)[i] = (float)(z >> 40) / 8388608.0f - 1.0f; break;
    case TN_F64: ((double *)out)[i] = (double)(z >> 40) / 8388608.0 - 1.0; break;
    case TN_F16: ((uint16_t *)out)[i] = ir_f32_to_f16((float)(z >> 53) / 1024.0f - 1.0f); break;
    case TN_BF16: ((uint16_t *)out)[i] = ir_f32_to_bf16((float)(z >> 56) / 128.0f - 1.0f); break;
    default:
      switch (ir_dtype_bytes(t)) {
      case 1: ((uint8_t *)out)[i] = ir_is_byte_float(t) ? ir_f64_to_byte(t, (double)(z >> 56) / 128.0 - 1.0) : (uint8_t)(z >> 63); break;
      case 2: ((uint16_t *)out)[i] = (uint16_t)(z >> 63); break;
      case 4: ((uint32_t *)out)[i] = (uint32_t)(z >> 63); break;
      default: ((uint64_t *)out)[i] = z >> 63; break;
      }
    }
  }
}

double fe_element(tn_dtype t, const void *data, int64_t i) {
  ir_scalar v = ir_scalar_load(t, (const char *)data + (size_t)i * ir_dtype_bytes(t));
  return ir_is_float(t) ? v.f : t == TN_U64 ? (double)(uint64_t)v.i : (double)v.i;
}

/* ---- files ---- */

void *fe_buffer(tn_ctx *ctx, int64_t bytes) {
  char *p = ir_alloc(ctx, (size_t)bytes + 64);
  return p + (-(uintptr_t)p & 63);
}

fe_array fe_array_load(tn_ctx *ctx, const char *path, const fe_onnx_type *type) {
  size_t n = strlen(path);
  fe_array a;
  if (n > 3 && strcmp(path + n - 3, ".pb") == 0) a = fe_onnx_array(ctx, fe_onnx_tensor_load(ctx, path, type));
  else a = fe_npy_load(ctx, path, 0);
  if ((uintptr_t)a.data & 63 || !a.data) {
    void *p = fe_buffer(ctx, (int64_t)a.bytes);
    if (a.bytes) memcpy(p, a.data, a.bytes);
    a.data = p;
  }
  return a;
}

int fe_test_data(tn_ctx *ctx, const char *dir, const char *stem, int ntypes, const fe_onnx_type *const *types, fe_array **out) {
  int n = 0;
  *out = NULL;
  for (;; n++) {
    const char *path = fe_path_join(ctx, dir, ir_format(ctx, "%s_%d.pb", stem, n));
    if (access(path, F_OK) != 0) path = fe_path_join(ctx, dir, ir_format(ctx, "%s_%d.npy", stem, n));
    if (access(path, F_OK) != 0) return n;
    int k = n;
    fe_array a = fe_array_load(ctx, path, n < ntypes ? types[n] : NULL);
    IR_PUSH(ctx, *out, k, a);
  }
}

/* ---- shapes ---- */

const char *fe_shape_text(tn_ctx *ctx, tn_dtype t, int rank, const int64_t *dims) {
  ir_text s = {.ctx = ctx};
  ir_put(&s, "%s[", ir_dtype_name(t));
  for (int i = 0; i < rank; i++) ir_put(&s, "%s%lld", i ? "," : "", (long long)dims[i]);
  ir_put(&s, "]");
  return s.s;
}

int fe_find_input(const ir_graph *g, const char *name) {
  for (int i = 0; i < g->ninputs; i++)
    if (strcmp(g->inputs[i]->name, name) == 0) return i;
  return -1;
}

static const char *declared(tn_ctx *ctx, const ir_value *v) {
  ir_text s = {.ctx = ctx};
  ir_put(&s, "%s[", ir_dtype_name(v->dtype));
  for (int i = 0; i < v->rank; i++) ir_put(&s, "%s%s", i ? "," : "", ix_print(ctx, v->dims[i]));
  ir_put(&s, "]");
  return s.s;
}

void fe_bind_input(tn_ctx *ctx, ir_graph *g, int k, const fe_array *a) {
  ir_value *v = g->inputs[k];
  if (a->rank > IR_MAX_RANK - 3)
    ir_fail(ctx, TN_EUNSUPPORTED, "input '%s': rank %d; at most %d is supported", v->name, a->rank, IR_MAX_RANK - 3);
  if (v->rank < 0 && v->dtype != TN_NONE) { /* the model says nothing about the shape */
    v->rank = a->rank;
    for (int i = 0; i < a->rank; i++) v->dims[i] = ix_index(ctx, a->dims[i]);
  }
  bool fits = (v->dtype == a->dtype || (a->unnamed && ir_is_byte_float(v->dtype))) && v->rank == a->rank;
  for (int i = 0; fits && i < v->rank; i++) {
    fits = v->dims[i]->op == IX_VAR || ix_is_int(v->dims[i], a->dims[i]);
    for (int j = 0; j < i && fits; j++) /* one name, one size */
      fits = v->dims[i] != v->dims[j] || a->dims[i] == a->dims[j];
  }
  for (int i = 0; fits && i < v->rank; i++) {
    ix d = v->dims[i];
    for (int j = 0; d->op == IX_VAR && j < g->ninputs; j++)
      for (int x = 0; x < g->inputs[j]->rank; x++)
        if (g->inputs[j]->dims[x] == d) g->inputs[j]->dims[x] = ix_index(ctx, a->dims[i]);
  }
  if (!fits)
    ir_fail(ctx, TN_EINPUT, "input '%s' is %s, given is %s", v->name, declared(ctx, v), fe_shape_text(ctx, a->dtype, a->rank, a->dims));
}
