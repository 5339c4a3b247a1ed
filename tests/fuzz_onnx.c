/* Fuzzes the ONNX reader: as a model, and as a bare tensor. External data is looked for in
 * the corpus folder. */
#include "frontend/onnx_model.h"
#include "tests/fuzz_limit.h"

#ifndef TN_SOURCE_DIR
#define TN_SOURCE_DIR "."
#endif

typedef struct input {
  const uint8_t *data;
  size_t n;
} input;

static void touch_names(const char *const *names, int n) {
  for (int i = 0; i < n; i++) fuzz_touch_str(names[i]);
}

static void touch_tensor(tn_ctx *ctx, const fe_onnx_tensor *t) {
  fuzz_touch_str(t->name);
  fuzz_touch(t->dims, (size_t)t->rank * sizeof *t->dims);
  ir_assert(ctx, t->elem > 0 && t->elem < FE_ONNX_ELEM_COUNT && t->count >= 0);
  ir_assert(ctx, !t->bytes || t->data);
  fuzz_touch(t->data, t->bytes);
  if (t->elem == FE_ONNX_STRING)
    for (int64_t i = 0; i < t->count; i++) fuzz_touch(t->strings[i].s, t->strings[i].n);
  if (t->dtype == TN_NONE) return;
  fe_array a = fe_onnx_array(ctx, t);
  ir_assert(ctx, a.bytes == (size_t)a.count * ir_dtype_bytes(a.dtype));
  for (int64_t i = 0; i < t->count && i < 100; i++) (void)fe_onnx_real_at(ctx, t, i);
}

static void touch_type(const fe_onnx_type *t) {
  for (int i = 0; i < t->rank; i++) fuzz_touch_str(t->dims[i].param);
  if (t->of) touch_type(t->of);
}

static void touch_values(const fe_onnx_value *v, int n) {
  for (int i = 0; i < n; i++) fuzz_touch_str(v[i].name), touch_type(&v[i].type);
}

static void touch_graph(tn_ctx *ctx, const fe_onnx_graph *g);

static void touch_attr(tn_ctx *ctx, const fe_onnx_attr *a) {
  fuzz_touch_str(a->name);
  fuzz_touch_str(a->ref);
  if (*a->ref) return;
  size_t n = (size_t)a->n;
  switch (a->kind) {
  case FE_ATTR_STRING: fuzz_touch(a->s.s, a->s.n + 1); break;
  case FE_ATTR_FLOATS: fuzz_touch(a->floats, n * sizeof *a->floats); break;
  case FE_ATTR_INTS: fuzz_touch(a->ints, n * sizeof *a->ints); break;
  case FE_ATTR_STRINGS:
    for (size_t i = 0; i < n; i++) fuzz_touch(a->strings[i].s, a->strings[i].n + 1);
    break;
  case FE_ATTR_TENSOR:
  case FE_ATTR_TENSORS:
    for (size_t i = 0; i < n; i++) touch_tensor(ctx, &a->tensors[i]);
    break;
  case FE_ATTR_GRAPH:
  case FE_ATTR_GRAPHS:
    for (size_t i = 0; i < n; i++) touch_graph(ctx, &a->graphs[i]);
    break;
  case FE_ATTR_TYPE_PROTO:
  case FE_ATTR_TYPE_PROTOS:
    for (size_t i = 0; i < n; i++) touch_type(&a->type[i]);
    break;
  default: break;
  }
}

static void touch_nodes(tn_ctx *ctx, const fe_onnx_node *node, int n) {
  for (int i = 0; i < n; i++) {
    ir_assert(ctx, *node[i].op);
    fuzz_touch_str(node[i].name);
    fuzz_touch_str(node[i].domain);
    fuzz_touch_str(node[i].overload);
    touch_names(node[i].in, node[i].n_in);
    touch_names(node[i].out, node[i].n_out);
    for (int k = 0; k < node[i].n_attr; k++) touch_attr(ctx, &node[i].attr[k]);
  }
}

static void touch_graph(tn_ctx *ctx, const fe_onnx_graph *g) {
  fuzz_touch_str(g->name);
  touch_nodes(ctx, g->node, g->n_node);
  for (int i = 0; i < g->n_init; i++) touch_tensor(ctx, &g->init[i]);
  touch_names(g->sparse, g->n_sparse);
  touch_values(g->in, g->n_in);
  touch_values(g->out, g->n_out);
  touch_values(g->value, g->n_value);
}

static void as_model(tn_ctx *ctx, void *arg) {
  input *in = arg;
  const fe_onnx *m = fe_onnx_parse(ctx, in->data, in->n, "fuzz.onnx", TN_SOURCE_DIR "/tests/corpus/onnx");
  fuzz_touch_str(m->producer);
  for (int i = 0; i < m->n_opset; i++) fuzz_touch_str(m->opset[i].domain);
  for (int i = 0; i < m->n_meta; i++) fuzz_touch_str(m->meta[i].key), fuzz_touch_str(m->meta[i].value);
  for (int i = 0; i < m->n_function; i++) {
    const fe_onnx_function *f = &m->function[i];
    touch_names(f->in, f->n_in);
    touch_names(f->out, f->n_out);
    touch_names(f->attr, f->n_attr);
    for (int k = 0; k < f->n_default; k++) touch_attr(ctx, &f->defaults[k]);
    touch_nodes(ctx, f->node, f->n_node);
    touch_values(f->value, f->n_value);
  }
  touch_graph(ctx, m->graph);
}

static void as_tensor(tn_ctx *ctx, void *arg) {
  input *in = arg;
  touch_tensor(ctx, fe_onnx_tensor_parse(ctx, in->data, in->n, "fuzz.pb", NULL));
}

/* Out of memory, which is a fault (see fuzz_limit.h), and a missing external file share a
 * status; the message tells them apart. */
static void no_memory_fault(tn_ctx *ctx, void *arg) {
  tn_status s = ir_protect(ctx, as_model, arg);
  if (s == TN_ERESOURCE && strstr(tn_error(ctx), "out of memory")) ir_bug(ctx, "too much memory");
  if (s == TN_EINTERNAL) ir_fail(ctx, s, "%s", ir_strdup(ctx, tn_error(ctx)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  input in = {data, n};
  unsigned long long allowed = 1u << TN_OK | 1u << TN_EINPUT | 1u << TN_EUNSUPPORTED;
  fuzz_run(64 * n + (64 << 10), no_memory_fault, &in, allowed);
  fuzz_run(64 * n + (64 << 10), as_tensor, &in, allowed);
  return 0;
}
