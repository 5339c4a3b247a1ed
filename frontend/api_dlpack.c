/* api_dlpack.c — tensors shared with other frameworks by DLPack (https://dmlc.github.io/dlpack). */
#include "frontend/api.h"
#include "ir/ctx_internal.h"
#include <string.h>

/* The layout of dlpack.h 0.8: DLDevice, DLDataType, DLTensor, DLManagedTensor. */
typedef struct dl_device {
  int32_t device_type; /* 1: CPU */
  int32_t device_id;
} dl_device;

typedef struct dl_type {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} dl_type;

enum { DL_CPU = 1, DL_INT = 0, DL_UINT = 1, DL_FLOAT = 2, DL_BFLOAT = 4, DL_BOOL = 6, DL_E4M3FN = 10, DL_E4M3FNUZ, DL_E5M2, DL_E5M2FNUZ, DL_NONE = 255 };

typedef struct dl_tensor {
  void *data;
  dl_device device;
  int32_t ndim;
  dl_type dtype;
  int64_t *shape;
  int64_t *strides; /* in elements; null: dense row-major */
  uint64_t byte_offset;
} dl_tensor;

struct DLManagedTensor {
  dl_tensor dl_tensor;
  void *manager_ctx;
  void (*deleter)(struct DLManagedTensor *self);
};

static dl_type type_of(tn_dtype t) {
  static const uint8_t bytes[] = {DL_E4M3FN, DL_E5M2, DL_E4M3FNUZ, DL_E5M2FNUZ, DL_NONE}; /* by tn_dtype; DLPack's 4-bit floats are packed */
  if (ir_is_byte_float(t)) return (dl_type){bytes[t - TN_F8E4M3FN], 8, 1};
  int code = t == TN_BOOL ? DL_BOOL : t == TN_BF16 ? DL_BFLOAT : ir_is_float(t) ? DL_FLOAT : ir_is_signed(t) ? DL_INT : DL_UINT;
  return (dl_type){(uint8_t)code, (uint8_t)(8 * ir_dtype_bytes(t)), 1};
}

static tn_dtype dtype_of(dl_type d) {
  for (int t = TN_BOOL; t < TN_INDEX; t++) {
    dl_type own = type_of((tn_dtype)t);
    if (own.code == d.code && own.bits == d.bits && own.lanes == d.lanes) return (tn_dtype)t;
  }
  return TN_NONE;
}

tn_status tn_bind_dlpack(tn_ctx *ctx, tn_binding *b, const tn_tensor *t, struct DLManagedTensor *dl) {
  if (!ctx) return TN_EUSAGE;
  if (!b || !t || !t->v || !dl) return ir_error_set(ctx, TN_EUSAGE, "tn_bind_dlpack: an argument is null");
  const dl_tensor *d = &dl->dl_tensor;
  const char *name = tn_name(t);
  int64_t dims[IR_MAX_RANK];
  int rank = tn_shape(t, dims);
  if (d->device.device_type != DL_CPU)
    return ir_error_set(ctx, TN_EUNSUPPORTED, "tn_bind_dlpack: '%s': the memory is on device type %d, not on the CPU", name, (int)d->device.device_type);
  if (dtype_of(d->dtype) == TN_NONE || dtype_of(d->dtype) != tn_type(t))
    return ir_error_set(ctx, TN_EUSAGE, "tn_bind_dlpack: '%s' is %s, given is type code %d of %d bits, %d lanes", name, ir_dtype_name(tn_type(t)),
                        d->dtype.code, d->dtype.bits, d->dtype.lanes);
  if (d->ndim != rank) return ir_error_set(ctx, TN_EUSAGE, "tn_bind_dlpack: '%s' has rank %d, given is rank %d", name, rank, (int)d->ndim);
  if (rank && !d->shape) return ir_error_set(ctx, TN_EUSAGE, "tn_bind_dlpack: '%s': the shape is null", name);
  bool empty = false;
  for (int i = 0; i < rank; i++) {
    if (dims[i] < 0) return ir_error_set(ctx, TN_EUSAGE, "tn_bind_dlpack: axis %d of '%s' has no size yet", i, name);
    if (d->shape[i] != dims[i])
      return ir_error_set(ctx, TN_EUSAGE, "tn_bind_dlpack: axis %d of '%s' has extent %lld, given is %lld", i, name, (long long)dims[i], (long long)d->shape[i]);
    empty |= dims[i] == 0;
  }
  int64_t stride = 1;
  for (int i = rank - 1; i >= 0 && d->strides && !empty; i--) {
    if (dims[i] != 1 && d->strides[i] != stride)
      return ir_error_set(ctx, TN_EUNSUPPORTED, "tn_bind_dlpack: '%s': axis %d has stride %lld, dense memory has %lld: copy it first", name, i,
                          (long long)d->strides[i], (long long)stride);
    stride *= dims[i];
  }
  if (!d->data && !empty) return ir_error_set(ctx, TN_EUSAGE, "tn_bind_dlpack: '%s': the data is null", name);
  b->tensor = t;
  b->data = d->data ? (char *)d->data + d->byte_offset : NULL;
  return TN_OK;
}

/* One block: the tensor, its shape, its strides, and behind them the data. */
typedef struct owned {
  struct DLManagedTensor dl;
  tn_config config;
  int64_t shape[TN_MAX_RANK], strides[TN_MAX_RANK];
} owned;

static void delete_owned(struct DLManagedTensor *self) {
  tn_config config = ((owned *)self->manager_ctx)->config;
  config.alloc(config.user, 0, self->manager_ctx);
}

struct DLManagedTensor *tn_alloc_dlpack(tn_ctx *ctx, const tn_tensor *t) {
  if (!ctx) return NULL;
  int64_t bytes = tn_bytes(t), size;
  if (bytes < 0) return ir_error_set(ctx, TN_EUSAGE, "tn_alloc_dlpack: the type or shape of '%s' is not known", tn_name(t)), NULL;
  enum { ALIGN = 64 };
  owned *o = ir_add_size(bytes, (int64_t)sizeof *o + ALIGN, &size) ? ctx->config.alloc(ctx->config.user, (size_t)size, NULL) : NULL;
  if (!o) return ir_error_set(ctx, TN_ERESOURCE, "tn_alloc_dlpack: out of memory: %lld bytes for '%s'", (long long)bytes, tn_name(t)), NULL;
  memset(o, 0, sizeof *o);
  o->config = ctx->config;
  int64_t stride = 1;
  int rank = tn_shape(t, o->shape);
  for (int i = rank - 1; i >= 0; i--) {
    o->strides[i] = stride;
    stride *= o->shape[i];
  }
  uintptr_t data = ((uintptr_t)(o + 1) + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1);
  memset((void *)data, 0, (size_t)bytes);
  o->dl = (struct DLManagedTensor){.dl_tensor = {.data = (void *)data, .device = {DL_CPU, 0}, .ndim = rank, .dtype = type_of(tn_type(t)),
                                                 .shape = o->shape, .strides = o->strides},
                                   .manager_ctx = o, .deleter = delete_owned};
  return &o->dl;
}
