/* cuda_device.c — devices: the driver's functions, what its errors mean. See cuda_device.h. */
#include "runtime/cuda_copies.h"
#include <string.h>

const rt_cuda_driver_table *rt_cuda_driver(tn_ctx *ctx, const char **why) {
  const rt_cuda_lib *l = rt_cuda_library(RT_CUDA_DRIVER);
  if (!l->handle) {
    *why = ir_format(ctx, "the CUDA driver is not there: %s", l->why);
    return NULL;
  }
  rt_cuda_driver_table *t = IR_NEW(ctx, rt_cuda_driver_table);
  struct { void **place; const char *symbol; } rows[] = {
#define ROW(field, symbol, parameters) {(void **)&t->field, symbol},
      RT_CUDA_DRIVER_ROWS(ROW)
#undef ROW
  };
  for (int i = 0; i < IR_COUNT(rows); i++)
    if (!(*rows[i].place = rt_cuda_symbol(RT_CUDA_DRIVER, rows[i].symbol))) {
      *why = ir_format(ctx, "the CUDA driver %s has no function %s: it is too old", l->path, rows[i].symbol);
      return NULL;
    }
#define ROW(field, symbol, parameters) *(void **)&t->field = rt_cuda_symbol(RT_CUDA_DRIVER, symbol);
  RT_CUDA_DRIVER_NEWER(ROW)
#undef ROW
  return t;
}

/* ---- devices ---- */

const char *rt_cuda_device_name(const rt_cuda_device *d) { return d->name; }
const char *rt_cuda_device_lost(const rt_cuda_device *d) { return *d->lost ? d->lost : NULL; }

/* Errors after which a context does nothing any more. */
static bool sticky(CUresult e) {
  static const CUresult all[] = {CUDA_ERROR_ECC_UNCORRECTABLE, CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_LAUNCH_TIMEOUT, CUDA_ERROR_ASSERT, CUDA_ERROR_HARDWARE_STACK_ERROR,
                                 CUDA_ERROR_ILLEGAL_INSTRUCTION, CUDA_ERROR_MISALIGNED_ADDRESS, CUDA_ERROR_INVALID_PC, CUDA_ERROR_LAUNCH_FAILED};
  for (int i = 0; i < IR_COUNT(all); i++)
    if (all[i] == e) return true;
  return false;
}

static const char *error_text(tn_ctx *ctx, const rt_cuda_driver_table *cu, CUresult e) {
  const char *name = NULL, *text = NULL;
  if (cu->error_name(e, &name) || !name) name = "unknown error";
  if (cu->error_text(e, &text) || !text) text = "";
  return ir_format(ctx, "%s (%d)%s%s", name, e, *text ? ": " : "", text);
}

void rt_cuda_need(tn_ctx *ctx, rt_cuda_device *d, CUresult e, const char *what) {
  if (!e) return;
  const char *text = error_text(ctx, d->cu, e);
  if (sticky(e)) {
    snprintf(d->lost, sizeof d->lost, "%s: %s", what, text);
    ir_fail(ctx, TN_EINTERNAL, "GPU: %s: %s; its context is lost, and all that lay in it", what, text);
  }
  ir_fail(ctx, e == CUDA_ERROR_OUT_OF_MEMORY ? TN_ERESOURCE : TN_EINTERNAL, "GPU: %s: %s", what, text);
}

void rt_cuda_need_alive(tn_ctx *ctx, const rt_cuda_device *d) {
  if (*d->lost) ir_fail(ctx, TN_EINTERNAL, "GPU: lost since: %s", d->lost);
}

static void close_device(void *arg) {
  rt_cuda_device *d = arg;
  if (!d->open) return;
  d->open = false;
  if (d->context) {
    d->cu->context_set(d->context);
    rt_cuda_copies_free(d);
    if (d->stream && !*d->lost) d->cu->stream_free(d->stream);
    if (*d->lost) d->cu->context_reset(d->number); /* the next to retain it gets a fresh one */
    d->cu->context_release(d->number);
  }
}

void rt_cuda_device_close(rt_cuda_device *d) {
  if (!d->open) return;
  ir_undefer(d->ctx, close_device, d);
  close_device(d);
}

static void check_versions(tn_ctx *ctx, int driver) {
  int nvrtc = rt_cuda_library(RT_CUDA_NVRTC)->version;
  if (driver && nvrtc && driver / 1000 < nvrtc / 1000)
    ir_fail(ctx, TN_EUNSUPPORTED, "the CUDA driver knows CUDA %d.%d and cannot load what NVRTC %d.%d compiles: update the driver, or name an older toolkit in TENON_CUDA_PATH", driver / 1000,
            driver % 1000 / 10, nvrtc / 1000, nvrtc % 1000 / 10);
}

static bool runs_on(const cu_target *t, int sm) { return t->hopper ? sm == t->sm : sm / 10 == t->sm / 10 && sm >= t->sm; }

typedef struct found { /* a device by its number, before anything is made on it */
  const rt_cuda_driver_table *cu;
  CUdevice number;
  char name[128];
  int sm, units;
} found;

static found find_device(tn_ctx *ctx, int index) {
  const char *why;
  found f = {.cu = rt_cuda_driver(ctx, &why)};
  const rt_cuda_driver_table *cu = f.cu;
  if (!cu) ir_fail(ctx, TN_EUNSUPPORTED, "%s", why);
  check_versions(ctx, rt_cuda_library(RT_CUDA_DRIVER)->version);
  int n = 0, major = 0, minor = 0;
  rt_cuda_device *d = &(rt_cuda_device){.ctx = ctx, .cu = cu};
  CUresult e = cu->init(0);
  if (e) ir_fail(ctx, TN_EUNSUPPORTED, "the CUDA driver does not start: %s", error_text(ctx, cu, e));
  rt_cuda_need(ctx, d, cu->device_count(&n), "counting devices");
  if (index >= n) ir_fail(ctx, TN_EUNSUPPORTED, n ? "there is no GPU number %d" : "the CUDA driver sees no GPU", index);
  rt_cuda_need(ctx, d, cu->device_get(&f.number, index), "a device");
  rt_cuda_need(ctx, d, cu->device_name(f.name, sizeof f.name, f.number), "a device's name");
  rt_cuda_need(ctx, d, cu->device_attribute(&major, CU_ATTRIBUTE_MAJOR, f.number), "a device's architecture");
  rt_cuda_need(ctx, d, cu->device_attribute(&minor, CU_ATTRIBUTE_MINOR, f.number), "a device's architecture");
  rt_cuda_need(ctx, d, cu->device_attribute(&f.units, CU_ATTRIBUTE_MULTIPROCESSORS, f.number), "a device's size");
  f.sm = major * 10 + minor;
  return f;
}

const cu_target *rt_cuda_device_target(tn_ctx *ctx, int index, const char **name) {
  found f = find_device(ctx, index);
  const cu_target *t, *best = NULL;
  for (int i = 0; (t = cu_target_at(i)); i++)
    if (runs_on(t, f.sm)) best = t;
  if (!best) ir_fail(ctx, TN_EUNSUPPORTED, "GPU %d (%s) is sm_%d, for which there is no target", index, f.name, f.sm);
  if (name) *name = ir_strdup(ctx, f.name);
  return best;
}

rt_cuda_device *rt_cuda_device_open(tn_ctx *ctx, const cu_target *t, int index) {
  found f = find_device(ctx, index);
  const rt_cuda_driver_table *cu = f.cu;
  int version = rt_cuda_library(RT_CUDA_DRIVER)->version;
  if (!runs_on(t, f.sm)) ir_fail(ctx, TN_EUNSUPPORTED, "GPU %d (%s) is sm_%d: code for %s does not run there", index, f.name, f.sm, t->name);
  rt_cuda_device *d = IR_NEW(ctx, rt_cuda_device);
  *d = (rt_cuda_device){.ctx = ctx, .cu = cu, .number = f.number, .open = true};
  ir_defer(ctx, close_device, d);
  rt_cuda_need(ctx, d, cu->context_retain(&d->context, d->number), "a context");
  rt_cuda_need(ctx, d, cu->context_set(d->context), "a context");
  rt_cuda_need(ctx, d, cu->stream_new(&d->stream, CU_STREAM_NON_BLOCKING), "a stream");
  rt_cuda_copies_new(ctx, d);
  d->name = ir_format(ctx, "%s, sm_%d, %d multiprocessors, driver %d.%d", f.name, f.sm, f.units, version / 1000, version % 1000 / 10);
  return d;
}
