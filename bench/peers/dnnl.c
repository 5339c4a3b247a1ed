/* dnnl.c — oneDNN as a program that the benchmark compares (protocol: bench/serve.h).
 *
 *   load ID gemm M N K const|var DIR    const: the library may choose the layout of B (packed ahead)
 *   load ID conv SPEC DIR               the library chooses all layouts; only the convolution is timed
 *   load ID conv-plain SPEC DIR         planar source and destination, weights as the library likes
 *
 * The SYCL runtime takes some microseconds to submit a primitive, which a network would pay once per
 * layer as any runtime pays for its calls, but which says nothing about the kernel: runs below 100 us are
 * submitted in batches, and the time that a primitive over one element takes in such a batch is taken off.
 *
 * Everything in fp32 (fpmath mode strict). Works with every CPU runtime that the library was built for;
 * the number of threads is what the process may run on, or OMP_NUM_THREADS.
 */
#include "bench/serve.h"
#include <dnnl.h>

enum { CASES = 64 };

static dnnl_engine_t engine;
static dnnl_stream_t stream;
static const char *failed; /* the call that failed */

#define TRY(call) \
  do { \
    dnnl_status_t status_ = (call); \
    if (status_ != dnnl_success) { \
      failed = #call; \
      return false; \
    } \
  } while (0)

typedef struct item {
  char *id;
  dnnl_primitive_t primitive;
  int nargs;
  dnnl_exec_arg_t args[3];
  dnnl_memory_t dst;
  int rank;
  dnnl_dims_t dims; /* of the destination */
  dnnl_format_tag_t plain;
  int batch;        /* runs between two waits: submitting may cost more than a tiny kernel */
  double once;      /* seconds of a run, roughly */
  const char *implementation;
} item;
static item items[CASES], empty;

static bool desc(dnnl_memory_desc_t *d, int rank, const int64_t *dims, dnnl_format_tag_t tag) {
  dnnl_dims_t v;
  for (int i = 0; i < rank; i++) v[i] = dims[i];
  TRY(dnnl_memory_desc_create_with_tag(d, rank, v, dnnl_f32, tag));
  return true;
}

static bool memory(dnnl_memory_t *m, const_dnnl_memory_desc_t d) {
  TRY(dnnl_memory_create(m, d, engine, DNNL_MEMORY_ALLOCATE));
  return true;
}

static bool copy_in(dnnl_memory_t m, const void *data, size_t bytes) {
  void *p;
  TRY(dnnl_memory_map_data(m, &p));
  memcpy(p, data, bytes);
  TRY(dnnl_memory_unmap_data(m, p));
  return true;
}

static bool reorder(dnnl_memory_t from, dnnl_memory_t to) {
  const_dnnl_memory_desc_t a, b;
  dnnl_primitive_desc_t pd;
  dnnl_primitive_t p;
  TRY(dnnl_memory_get_memory_desc(from, &a));
  TRY(dnnl_memory_get_memory_desc(to, &b));
  TRY(dnnl_reorder_primitive_desc_create(&pd, a, engine, b, engine, NULL));
  TRY(dnnl_primitive_create(&p, pd));
  TRY(dnnl_primitive_execute(p, stream, 2, (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}}));
  TRY(dnnl_stream_wait(stream));
  TRY(dnnl_primitive_destroy(p));
  TRY(dnnl_primitive_desc_destroy(pd));
  return true;
}

/* The operand of a primitive in the layout that it wants, filled from a file. */
static bool operand(item *t, int k, int arg, dnnl_primitive_desc_t pd, dnnl_query_t query, int rank, const int64_t *dims, dnnl_format_tag_t plain, const char *dir, const char *name) {
  size_t bytes = 4;
  for (int i = 0; i < rank; i++) bytes *= (size_t)dims[i];
  void *data = name ? serve_read(dir, name, bytes) : NULL;
  if (name && !data) {
    failed = "reading the operands";
    return false;
  }
  dnnl_memory_t m;
  if (!memory(&m, dnnl_primitive_desc_query_md(pd, query, 0))) return false;
  t->args[k] = (dnnl_exec_arg_t){arg, m};
  if (!data) {
    t->dst = m;
    return true;
  }
  dnnl_memory_desc_t d;
  dnnl_memory_t from;
  bool ok = desc(&d, rank, dims, plain) && memory(&from, d) && copy_in(from, data, bytes) && reorder(from, m);
  free(data);
  if (ok) dnnl_memory_destroy(from), dnnl_memory_desc_destroy(d);
  return ok;
}

static bool finish(item *t, dnnl_primitive_desc_t pd) {
  const char *name = NULL;
  if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success && name) t->implementation = strdup(name);
  TRY(dnnl_primitive_create(&t->primitive, pd));
  TRY(dnnl_primitive_desc_destroy(pd));
  return true;
}

static bool load_gemm(item *t, char **word) {
  int64_t m = atoll(word[3]), n = atoll(word[4]), k = atoll(word[5]);
  const char *dir = word[7];
  dnnl_memory_desc_t a, b, c;
  dnnl_primitive_desc_t pd;
  bool constant = strcmp(word[6], "const") == 0;
  int64_t da[] = {m, k}, db[] = {k, n}, dc[] = {m, n};
  if (!desc(&a, 2, da, dnnl_ab) || !desc(&b, 2, db, constant ? dnnl_format_tag_any : dnnl_ab) || !desc(&c, 2, dc, dnnl_ab)) return false;
  TRY(dnnl_matmul_primitive_desc_create(&pd, engine, a, b, NULL, c, NULL));
  t->rank = 2;
  t->plain = dnnl_ab;
  memcpy(t->dims, dc, sizeof dc);
  return operand(t, 0, DNNL_ARG_SRC, pd, dnnl_query_src_md, 2, da, dnnl_ab, dir, "a.bin") &&
         operand(t, 1, DNNL_ARG_WEIGHTS, pd, dnnl_query_weights_md, 2, db, dnnl_ab, dir, "b.bin") &&
         operand(t, 2, DNNL_ARG_DST, pd, dnnl_query_dst_md, 2, dc, dnnl_ab, dir, NULL) && finish(t, pd);
}

static bool load_conv(item *t, char **word) {
  serve_conv v;
  const char *dir = word[4];
  if (!serve_parse_conv(word[3], &v)) {
    failed = "reading the sizes";
    return false;
  }
  bool plain = strcmp(word[2], "conv-plain") == 0, grouped = v.g > 1;
  dnnl_memory_desc_t x, w, y;
  dnnl_primitive_desc_t pd;
  int64_t dx[] = {v.n, v.c, v.h, v.w}, dw[] = {v.k, v.c, v.r, v.s}, dg[] = {v.g, v.k / v.g, v.c / v.g, v.r, v.s}, dy[] = {v.n, v.k, v.oh, v.ow};
  dnnl_format_tag_t tag = plain ? dnnl_abcd : dnnl_format_tag_any;
  if (!desc(&x, 4, dx, tag) || !desc(&w, grouped ? 5 : 4, grouped ? dg : dw, dnnl_format_tag_any) || !desc(&y, 4, dy, tag)) return false;
  dnnl_dims_t u = {v.u, v.u}, p = {v.p, v.p}, d = {v.d - 1, v.d - 1};
  TRY(dnnl_convolution_forward_primitive_desc_create(&pd, engine, dnnl_forward_inference, dnnl_convolution_direct, x, w, NULL, y, u, d, p, p, NULL));
  t->rank = 4;
  t->plain = dnnl_abcd;
  memcpy(t->dims, dy, sizeof dy);
  return operand(t, 0, DNNL_ARG_SRC, pd, dnnl_query_src_md, 4, dx, dnnl_abcd, dir, "x.bin") &&
         operand(t, 1, DNNL_ARG_WEIGHTS, pd, dnnl_query_weights_md, grouped ? 5 : 4, grouped ? dg : dw, grouped ? dnnl_abcde : dnnl_abcd, dir, "w.bin") &&
         operand(t, 2, DNNL_ARG_DST, pd, dnnl_query_dst_md, 4, dy, dnnl_abcd, dir, NULL) && finish(t, pd);
}

static bool run(void *arg) {
  item *t = arg;
  for (int i = 0; i < t->batch; i++)
    if (dnnl_primitive_execute(t->primitive, stream, t->nargs, t->args) != dnnl_success) return false;
  return dnnl_stream_wait(stream) == dnnl_success;
}

/* A primitive over one element: what remains is the cost of submitting. */
static bool make_empty(void) {
  dnnl_memory_desc_t d;
  dnnl_primitive_desc_t pd;
  dnnl_memory_t m;
  int64_t one[] = {1};
  if (!desc(&d, 1, one, dnnl_a) || !memory(&m, d)) return false;
  TRY(dnnl_eltwise_forward_primitive_desc_create(&pd, engine, dnnl_forward_inference, dnnl_eltwise_relu, d, d, 0, 0, NULL));
  TRY(dnnl_primitive_create(&empty.primitive, pd));
  empty.args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, m};
  empty.args[1] = (dnnl_exec_arg_t){DNNL_ARG_DST, m};
  empty.nargs = 2;
  return true;
}

static void command_run(item *t, double seconds) {
  static double s[SERVE_SAMPLES];
  double overhead = 0;
  empty.batch = t->batch;
  if (t->batch > 1 && empty.primitive && serve_times(run, &empty, seconds / 4, t->batch, s) > 0) overhead = s[0];
  if (overhead > 0 && overhead > 0.9 * t->once) overhead = 0.9 * t->once;
  serve_measure(run, t, seconds, t->batch, overhead);
}

static bool save(item *t, const char *dir) {
  dnnl_memory_desc_t d;
  dnnl_memory_t to;
  if (!run(t) || !desc(&d, t->rank, t->dims, t->plain) || !memory(&to, d) || !reorder(t->dst, to)) return false;
  size_t bytes = dnnl_memory_desc_get_size(d);
  void *p;
  TRY(dnnl_memory_map_data(to, &p));
  bool ok = serve_write(dir, 0, p, bytes);
  TRY(dnnl_memory_unmap_data(to, p));
  dnnl_memory_destroy(to);
  dnnl_memory_desc_destroy(d);
  failed = "writing the output";
  return ok;
}

static void load(int n, char **word) {
  item *t = NULL;
  for (int i = 0; i < CASES && !t; i++)
    if (!items[i].id) t = &items[i];
  const char *kind = n > 4 ? word[2] : "";
  if (!t || (strcmp(kind, "gemm") ? strncmp(kind, "conv", 4) : n < 8)) {
    serve_error("load: only matrix products and convolutions");
    return;
  }
  *t = (item){.batch = 1, .nargs = 3};
  if (!(strcmp(kind, "gemm") == 0 ? load_gemm : load_conv)(t, word)) {
    serve_error("%s failed", failed);
    return;
  }
  static double s[SERVE_SAMPLES];
  if (serve_times(run, t, 0, 1, s) < 0) {
    serve_error("the run failed");
    return;
  }
  if (s[0] < 100e-6) t->batch = (int)(300e-6 / s[0]) + 1;
  t->once = s[0];
  if (t->batch > 1 && serve_times(run, t, 0.005, t->batch, s) > 0) t->once = s[0];
  t->id = strdup(word[1]);
  serve_ok("\"outputs\": 1, \"batch\": %d, \"implementation\": \"%s\"", t->batch, t->implementation ? t->implementation : "");
}

static void handle(int n, char **word) {
  if (strcmp(word[0], "load") == 0) {
    load(n, word);
    return;
  }
  item *t = NULL;
  for (int i = 0; n > 1 && i < CASES; i++)
    if (items[i].id && strcmp(items[i].id, word[1]) == 0) t = &items[i];
  if (!t) serve_error("no such case");
  else if (strcmp(word[0], "run") == 0 && n > 2) command_run(t, atof(word[2]));
  else if (strcmp(word[0], "save") == 0 && n > 2) {
    if (save(t, word[2])) serve_ok("\"outputs\": 1");
    else serve_error("%s failed", failed);
  } else if (strcmp(word[0], "drop") == 0) {
    for (int i = 0; i < 3; i++) dnnl_memory_destroy(t->args[i].memory);
    dnnl_primitive_destroy(t->primitive);
    free(t->id);
    *t = (item){0};
    serve_ok("\"dropped\": true");
  } else serve_error("unknown command");
}

int main(void) {
  if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success || dnnl_stream_create(&stream, engine, dnnl_stream_in_order) != dnnl_success) {
    fprintf(stderr, "oneDNN finds no CPU engine\n");
    return 1;
  }
  if (!make_empty()) fprintf(stderr, "oneDNN: %s failed\n", failed);
  const dnnl_version_t *v = dnnl_version();
  fprintf(stderr, "oneDNN %d.%d.%d\n", v->major, v->minor, v->patch);
  serve(handle);
  return 0;
}
