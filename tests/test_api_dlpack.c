/* DLPack in and out, with the structs as dlpack.h of version 0.8 lays them out. */
#include "frontend/tenon.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

typedef enum { kDLCPU = 1, kDLCUDA = 2 } DLDeviceType;
typedef struct {
  DLDeviceType device_type;
  int32_t device_id;
} DLDevice;
typedef enum { kDLInt = 0U, kDLUInt = 1U, kDLFloat = 2U, kDLOpaqueHandle = 3U, kDLBfloat = 4U, kDLComplex = 5U, kDLBool = 6U } DLDataTypeCode;
typedef struct {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} DLDataType;
typedef struct {
  void *data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape;
  int64_t *strides;
  uint64_t byte_offset;
} DLTensor;
typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;

static tn_ctx *ctx;
static tn_graph *g;
static void setup(void) {
  setenv("TENON_DB", "none", 1); /* default schedules */
  ctx = tn_ctx_new(NULL);
  g = tn_graph_new(ctx, "dlpack");
}
static void teardown(void) { tn_ctx_free(ctx); }
TestSuite(dlpack, .init = setup, .fini = teardown);

#define DIMS(...) (int64_t[]){__VA_ARGS__}

static int deleted;
static void count_deletion(DLManagedTensor *self) {
  (void)self;
  deleted++;
}

Test(dlpack, in_and_out) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 2, DIMS(2, 3)), *y = tn_add(g, x, x);
  cr_assert_eq(tn_output(g, "y", y), TN_OK);
  tn_module *m = tn_compile(g, NULL, 0, NULL);
  cr_assert(m, "%s", tn_error(ctx));
  float memory[8] = {-1, -1, 1, 2, 3, 4, 5, 6};
  DLManagedTensor in = {{memory, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, DIMS(2, 3), DIMS(3, 1), 8}, NULL, count_deletion};
  DLManagedTensor *out = tn_alloc_dlpack(ctx, y);
  cr_assert(out, "%s", tn_error(ctx));
  DLTensor *o = &out->dl_tensor;
  cr_assert(o->device.device_type == kDLCPU && o->ndim == 2 && o->shape[0] == 2 && o->shape[1] == 3);
  cr_assert(o->strides[0] == 3 && o->strides[1] == 1 && o->byte_offset == 0);
  cr_assert(o->dtype.code == kDLFloat && o->dtype.bits == 32 && o->dtype.lanes == 1);
  cr_assert_eq((uintptr_t)o->data % 64, 0);
  tn_binding b[2];
  cr_assert_eq(tn_bind_dlpack(ctx, &b[0], x, &in), TN_OK, "%s", tn_error(ctx));
  cr_assert_eq(tn_bind_dlpack(ctx, &b[1], y, out), TN_OK, "%s", tn_error(ctx));
  cr_assert_eq(b[0].data, memory + 2, "no copy");
  cr_assert_eq(tn_run(m, 2, b), TN_OK, "%s", tn_run_error());
  for (int i = 0; i < 6; i++) cr_assert_eq(((float *)o->data)[i], 2.0f * (float)(i + 1));
  cr_assert_eq(deleted, 0, "the caller releases");
  tn_ctx_free(ctx); /* the tensor outlives its context */
  cr_assert_eq(((float *)o->data)[5], 12);
  out->deleter(out);
  ctx = tn_ctx_new(NULL);
}

static void *limited(void *user, size_t bytes, void *old) {
  (void)user;
  if (bytes > 1 << 30) return NULL;
  if (bytes) return realloc(old, bytes);
  free(old);
  return NULL;
}

Test(dlpack, all_types) {
  static const struct {
    tn_dtype t;
    uint8_t code, bits;
  } rows[] = {{TN_BOOL, kDLBool, 8}, {TN_I8, kDLInt, 8}, {TN_I16, kDLInt, 16}, {TN_I32, kDLInt, 32}, {TN_I64, kDLInt, 64},
              {TN_U8, kDLUInt, 8}, {TN_U16, kDLUInt, 16}, {TN_U32, kDLUInt, 32}, {TN_U64, kDLUInt, 64},
              {TN_F16, kDLFloat, 16}, {TN_BF16, kDLBfloat, 16}, {TN_F32, kDLFloat, 32}, {TN_F64, kDLFloat, 64},
              {TN_F8E4M3FN, 10, 8}, {TN_F8E4M3FNUZ, 11, 8}, {TN_F8E5M2, 12, 8}, {TN_F8E5M2FNUZ, 13, 8}}; /* of DLPack 1.1 */
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    DLManagedTensor *t = tn_alloc_dlpack(ctx, tn_input(g, NULL, rows[i].t, 1, DIMS(5)));
    cr_assert(t);
    cr_assert(t->dl_tensor.dtype.code == rows[i].code && t->dl_tensor.dtype.bits == rows[i].bits);
    t->deleter(t);
  }
  DLManagedTensor *scalar = tn_alloc_dlpack(ctx, tn_input(g, NULL, TN_F64, 0, NULL));
  cr_assert(scalar && scalar->dl_tensor.ndim == 0);
  scalar->deleter(scalar);
  cr_assert_null(tn_alloc_dlpack(ctx, tn_input(g, NULL, TN_F64, 1, DIMS(tn_dim(g, "n")))));
  cr_assert(strstr(tn_error(ctx), "tn_alloc_dlpack"));
  tn_ctx *small = tn_ctx_new(&(tn_config){.alloc = limited});
  tn_graph *h = tn_graph_new(small, "huge");
  cr_assert_null(tn_alloc_dlpack(small, tn_input(h, "huge", TN_F64, 2, DIMS(1 << 30, 1 << 28))));
  cr_assert(strstr(tn_error(small), "out of memory"), "%s", tn_error(small));
  tn_ctx_free(small);
}

Test(dlpack, refused) {
  tn_tensor *x = tn_input(g, "x", TN_F32, 2, DIMS(2, 3));
  float memory[6] = {0};
  const DLManagedTensor good = {{memory, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, DIMS(2, 3), NULL, 0}, NULL, NULL};
  DLManagedTensor bad;
  tn_binding b = {NULL, NULL};
#define REFUSED(change, status, text)                                                        \
  do {                                                                                       \
    bad = good;                                                                              \
    change;                                                                                  \
    cr_assert_eq(tn_bind_dlpack(ctx, &b, x, &bad), status);                                  \
    cr_assert(strstr(tn_error(ctx), text), "%s", tn_error(ctx));                             \
    cr_assert_null(b.tensor);                                                                \
  } while (0)
  REFUSED(bad.dl_tensor.device.device_type = kDLCUDA, TN_EUNSUPPORTED, "device type 2");
  REFUSED(bad.dl_tensor.dtype.bits = 64, TN_EUSAGE, "'x' is f32");
  REFUSED(bad.dl_tensor.dtype.code = kDLComplex, TN_EUSAGE, "type code 5");
  REFUSED(bad.dl_tensor.dtype.lanes = 4, TN_EUSAGE, "4 lanes");
  REFUSED(bad.dl_tensor.ndim = 1, TN_EUSAGE, "rank 2, given is rank 1");
  REFUSED(bad.dl_tensor.shape = DIMS(3, 2), TN_EUSAGE, "axis 0 of 'x' has extent 2, given is 3");
  REFUSED(bad.dl_tensor.shape = NULL, TN_EUSAGE, "the shape is null");
  REFUSED(bad.dl_tensor.strides = DIMS(1, 2), TN_EUNSUPPORTED, "stride 2, dense memory has 1");
  REFUSED(bad.dl_tensor.data = NULL, TN_EUSAGE, "the data is null");
  bad = good;
  tn_tensor *row = tn_input(g, "row", TN_F32, 2, DIMS(1, 6));
  bad.dl_tensor.shape = DIMS(1, 6);
  bad.dl_tensor.strides = DIMS(99, 1); /* of an axis of extent 1: any */
  cr_assert_eq(tn_bind_dlpack(ctx, &b, row, &bad), TN_OK, "%s", tn_error(ctx));
  cr_assert_eq(tn_bind_dlpack(ctx, NULL, row, &bad), TN_EUSAGE);
}
