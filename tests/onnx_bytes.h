/* onnx_bytes.h — writes small ONNX models as bytes, field by field, for tests. */
#ifndef TESTS_ONNX_BYTES_H
#define TESTS_ONNX_BYTES_H
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct pb { /* a message under construction */
  size_t n;
  char b[16384];
} pb;

static inline void pb_raw(pb *m, const void *p, size_t n) {
  if (m->n + n > sizeof m->b) n = sizeof m->b - m->n; /* tests stay small */
  memcpy(m->b + m->n, p, n);
  m->n += n;
}
static inline void pb_varint(pb *m, uint64_t v) {
  do {
    char c = (char)((v & 127) | (v > 127 ? 128 : 0));
    pb_raw(m, &c, 1);
  } while (v >>= 7);
}
static inline void pb_int(pb *m, int field, int64_t v) { pb_varint(m, (uint64_t)field << 3), pb_varint(m, (uint64_t)v); }
static inline void pb_bytes(pb *m, int field, const void *p, size_t n) { pb_varint(m, (uint64_t)field << 3 | 2), pb_varint(m, n), pb_raw(m, p, n); }
static inline void pb_str(pb *m, int field, const char *s) { pb_bytes(m, field, s, strlen(s)); }
static inline void pb_sub(pb *m, int field, const pb *sub) { pb_bytes(m, field, sub->b, sub->n); }
static inline void pb_float(pb *m, int field, float v) { pb_varint(m, (uint64_t)field << 3 | 5), pb_raw(m, &v, 4); }

/* Comma-separated names; an empty one is an omitted operand. */
static inline void pb_names(pb *m, int field, const char *list) {
  while (*list) {
    size_t n = strcspn(list, ",");
    pb_bytes(m, field, list, n);
    list += n + (list[n] == ',');
  }
}

/* NodeProto; attributes are added with on_attr... before it is put into a graph. */
static inline pb on_node(const char *op, const char *in, const char *out) {
  pb m = {0};
  pb_names(&m, 1, in);
  pb_names(&m, 2, out);
  pb_str(&m, 3, out);
  pb_str(&m, 4, op);
  return m;
}
static inline void on_attr_int(pb *node, const char *name, int64_t v) {
  pb a = {0};
  pb_str(&a, 1, name), pb_int(&a, 3, v), pb_int(&a, 20, 2);
  pb_sub(node, 5, &a);
}
static inline void on_attr_float(pb *node, const char *name, float v) {
  pb a = {0};
  pb_str(&a, 1, name), pb_float(&a, 2, v), pb_int(&a, 20, 1);
  pb_sub(node, 5, &a);
}
static inline void on_attr_ref(pb *node, const char *name, const char *of, int kind) {
  pb a = {0};
  pb_str(&a, 1, name), pb_str(&a, 21, of), pb_int(&a, 20, kind);
  pb_sub(node, 5, &a);
}

/* ValueInfoProto of a tensor: "2,N,3" has a fixed, a symbolic and a fixed dimension. */
static inline pb on_value(const char *name, int elem, const char *dims) {
  pb v = {0}, type = {0}, tensor = {0}, shape = {0};
  while (*dims) {
    pb d = {0};
    size_t n = strcspn(dims, ",");
    long long k;
    if (sscanf(dims, "%lld", &k) == 1) pb_int(&d, 1, k);
    else pb_bytes(&d, 2, dims, n);
    pb_sub(&shape, 1, &d);
    dims += n + (dims[n] == ',');
  }
  pb_int(&tensor, 1, elem), pb_sub(&tensor, 2, &shape);
  pb_sub(&type, 1, &tensor);
  pb_str(&v, 1, name), pb_sub(&v, 2, &type);
  return v;
}

/* TensorProto with raw data; rank 0 or 1. */
static inline pb on_tensor(const char *name, int elem, int rank, int64_t count, const void *data, size_t bytes) {
  pb t = {0};
  if (rank) pb_int(&t, 1, count);
  pb_int(&t, 2, elem), pb_str(&t, 8, name), pb_bytes(&t, 9, data, bytes);
  return t;
}
static inline pb on_ints(const char *name, int n, const int64_t *v) { return on_tensor(name, 7, 1, n, v, (size_t)n * 8); }
static inline pb on_floats(const char *name, int n, const float *v) { return on_tensor(name, 1, 1, n, v, (size_t)n * 4); }

/* A model around a graph. */
typedef struct on_model {
  pb graph, functions;
  int opset;
} on_model;
static inline void on_add(on_model *m, pb node) { pb_sub(&m->graph, 1, &node); }
static inline void on_input(on_model *m, const char *name, int elem, const char *dims) {
  pb v = on_value(name, elem, dims);
  pb_sub(&m->graph, 11, &v);
}
static inline void on_output(on_model *m, const char *name, int elem, const char *dims) {
  pb v = on_value(name, elem, dims);
  pb_sub(&m->graph, 12, &v);
}
static inline void on_init(on_model *m, pb tensor) { pb_sub(&m->graph, 5, &tensor); }
static inline pb on_opset(const char *domain, int version) {
  pb o = {0};
  pb_str(&o, 1, domain), pb_int(&o, 2, version);
  return o;
}
static inline pb on_finish(const on_model *m) {
  pb p = {0}, o = on_opset("", m->opset ? m->opset : 18), local = on_opset("local", 1);
  pb_int(&p, 1, 8);
  pb_sub(&p, 8, &o), pb_sub(&p, 8, &local);
  pb_sub(&p, 7, &m->graph);
  pb_raw(&p, m->functions.b, m->functions.n);
  return p;
}
/* A function of domain "local"; `nodes`: NodeProtos as fields 7, attributes as wanted. */
static inline void on_function(on_model *m, const char *name, const char *in, const char *out, const pb *fields) {
  pb f = {0}, o = on_opset("", m->opset ? m->opset : 18), local = on_opset("local", 1);
  pb_str(&f, 1, name), pb_names(&f, 4, in), pb_names(&f, 5, out);
  pb_raw(&f, fields->b, fields->n);
  pb_sub(&f, 9, &o), pb_sub(&f, 9, &local), pb_str(&f, 10, "local");
  pb_sub(&m->functions, 25, &f);
}
#endif
