/* cli_kernel.c — kernels by name: "gemm:f32:MxNxK" and "conv:f32:n1c64h56w56k64r3s3u1p1" as graphs. */
#include "frontend/cli.h"
#include <string.h>

bool cli_is_kernel(const char *s) { return strncmp(s, "gemm:", 5) == 0 || strncmp(s, "conv:", 5) == 0; }

typedef struct spec {
  cli *c;
  const char *text;
  tn_dtype dtype;
  bool var, across, cold;
} spec;

static void IR_NORETURN bad(const spec *s, const char *why) {
  ir_fail(s->c->ctx, TN_EUSAGE, "'%s': %s (gemm:f32:MxNxK[:var][:nt][:cold], conv:f32:n1c64h56w56k64r3s3u1p1[:var][:cold])", s->text, why);
}

static int64_t number(const spec *s, const char **p) {
  int64_t v = 0;
  if (**p < '0' || **p > '9') bad(s, "a number is missing");
  for (; **p >= '0' && **p <= '9'; (*p)++)
    if ((v = v * 10 + (**p - '0')) > 1 << 24) bad(s, "a number is too large");
  return v;
}

/* The word up to the next ':' or the end. */
static const char *word(const spec *s, const char **p) {
  size_t n = strcspn(*p, ":");
  const char *w = ir_strndup(s->c->ctx, *p, n);
  *p += n + ((*p)[n] == ':');
  return w;
}

/* Constant random weights, or an input. */
static ir_value *operand(spec *s, ir_graph *g, const char *name, int copy, int rank, const int64_t *dims, bool constant) {
  tn_ctx *ctx = s->c->ctx;
  name = copy ? ir_format(ctx, "%s%d", name, copy) : name;
  ix d[IR_MAX_RANK];
  int64_t n = 1;
  for (int i = 0; i < rank; i++) {
    d[i] = ix_index(ctx, dims[i]);
    if (dims[i] < 1 || !ir_mul_size(n, dims[i], &n) || n > (int64_t)1 << 32) bad(s, "a size is out of range");
  }
  if (!constant) return ir_graph_input(g, name, s->dtype, rank, d);
  void *data = fe_buffer(ctx, n * (int64_t)ir_dtype_bytes(s->dtype));
  fe_random(data, s->dtype, n, (uint64_t)s->c->seed, 128 + copy);
  return ir_graph_const(g, name, s->dtype, rank, dims, data, false);
}

/* So many copies that their operands together are four times the second-level cache. */
static int copies(const spec *s, double elements) {
  if (!s->cold) return 1;
  double bytes = elements * (double)ir_dtype_bytes(s->dtype), want = 4.0 * (double)cg_target_find(s->c->ctx, s->c->cpu, s->c->triple)->l2_bytes;
  int n = bytes > 0 ? (int)(want / bytes) + 2 : 2;
  return n > 256 ? 256 : n;
}

static void gemm(spec *s, const char *p, ir_graph *g, int *count) {
  int64_t m = number(s, &p), n, k;
  if (*p++ != 'x') bad(s, "MxNxK expected");
  n = number(s, &p);
  if (*p++ != 'x') bad(s, "MxNxK expected");
  k = number(s, &p);
  if (*p) bad(s, "MxNxK expected");
  *count = copies(s, (double)m * (double)k + (double)k * (double)n + (double)m * (double)n);
  for (int i = 0; i < *count; i++) {
    ir_value *in[2] = {operand(s, g, "A", i, 2, (int64_t[]){m, k}, false), operand(s, g, "B", i, 2, s->across ? (int64_t[]){n, k} : (int64_t[]){k, n}, !s->var)};
    ir_node *node = ir_node_new(g, s->across ? "Gemm" : "MatMul", i ? ir_format(s->c->ctx, "C%d", i) : "C", 2, in, 1);
    if (s->across) ir_attr_int(node, "transB", 1);
    ir_graph_output(g, node->out[0]);
  }
}

static void conv(spec *s, const char *p, ir_graph *g, int *count) {
  int64_t v[128] = {['n'] = 1, ['u'] = 1, ['d'] = 1, ['g'] = 1, ['r'] = 1, ['s'] = 1};
  bool seen[128] = {false};
  while (*p) {
    int letter = *p++;
    if (letter <= 0 || letter > 127 || !strchr("nchwkrsudgp", letter)) bad(s, "letters n c h w k r s u d g p expected");
    if (seen[letter]) bad(s, "a letter stands twice");
    seen[letter] = true;
    v[letter] = number(s, &p);
  }
  if (!v['c'] || !v['h'] || !v['w'] || !v['k']) bad(s, "c, h, w and k are needed");
  if (!v['u'] || !v['d'] || !v['g'] || v['c'] % v['g'] || v['k'] % v['g']) bad(s, "u, d, g must be at least 1, and g divide c and k");
  *count = copies(s, (double)v['n'] * (double)v['c'] * (double)v['h'] * (double)v['w'] + (double)v['k'] * (double)v['c'] * (double)v['r'] * (double)v['s']);
  for (int i = 0; i < *count; i++) {
    ir_value *in[2] = {operand(s, g, "X", i, 4, (int64_t[]){v['n'], v['c'], v['h'], v['w']}, false),
                       operand(s, g, "W", i, 4, (int64_t[]){v['k'], v['c'] / v['g'], v['r'], v['s']}, !s->var)};
    ir_node *node = ir_node_new(g, "Conv", i ? ir_format(s->c->ctx, "Y%d", i) : "Y", 2, in, 1);
    ir_attr_ints(node, "strides", 2, (int64_t[]){v['u'], v['u']});
    ir_attr_ints(node, "dilations", 2, (int64_t[]){v['d'], v['d']});
    ir_attr_ints(node, "pads", 4, (int64_t[]){v['p'], v['p'], v['p'], v['p']});
    ir_attr_int(node, "group", v['g']);
    ir_graph_output(g, node->out[0]);
  }
}

ir_graph *cli_kernel_graph(cli *c, const char *text, int *count) {
  spec s = {.c = c, .text = text};
  const char *p = text, *kind = word(&s, &p), *type = word(&s, &p), *sizes = word(&s, &p);
  s.dtype = ir_dtype_parse(type, strlen(type));
  if (s.dtype == TN_NONE || s.dtype == TN_INDEX || s.dtype == TN_BOOL) bad(&s, "unknown element type");
  while (*p) {
    const char *flag = word(&s, &p);
    if (strcmp(flag, "var") == 0) s.var = true;
    else if (strcmp(flag, "nt") == 0 && strcmp(kind, "gemm") == 0) s.across = true;
    else if (strcmp(flag, "cold") == 0) s.cold = true;
    else bad(&s, "unknown word at the end");
  }
  ir_graph *g = ir_graph_new(c->ctx, kind);
  if (strcmp(kind, "gemm") == 0) gemm(&s, sizes, g, count);
  else conv(&s, sizes, g, count);
  return g;
}
