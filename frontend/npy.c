/* npy.c — reads and writes NumPy's .npy files. */
#include "frontend/npy.h"
#include <stdio.h>
#include <string.h>

enum { MAX_DIMS = 64 }; /* NumPy's own limit */

static const struct {
  const char *code; /* without the byte order */
  tn_dtype dtype;
} codes[] = {
    {"b1", TN_BOOL}, {"i1", TN_I8},  {"i2", TN_I16}, {"i4", TN_I32}, {"i8", TN_I64}, {"u1", TN_U8},  {"u2", TN_U16},
    {"u4", TN_U32},  {"u8", TN_U64}, {"f2", TN_F16}, {"f4", TN_F32}, {"f8", TN_F64}, {"V2", TN_BF16}, {"V1", TN_F8E4M3FN},
};

/* ---- the header: a Python dictionary ---- */

typedef struct header {
  tn_ctx *ctx;
  const char *file, *base, *p, *end;
  tn_dtype dtype;
  bool fortran;
  int rank;
  int64_t dims[MAX_DIMS];
} header;

static void IR_NORETURN bad(header *h, const char *reason) {
  ir_fail(h->ctx, TN_EINPUT, "%s: npy header: %s (byte %zu)", h->file, reason, (size_t)(h->p - h->base));
}

static void blanks(header *h) {
  while (h->p < h->end && (*h->p == ' ' || *h->p == '\t' || *h->p == '\n' || *h->p == '\r')) h->p++;
}

static bool accept(header *h, char c) {
  blanks(h);
  if (h->p == h->end || *h->p != c) return false;
  h->p++;
  return true;
}

static void expect(header *h, char c) {
  if (!accept(h, c)) bad(h, ir_format(h->ctx, "'%c' expected", c));
}

/* A quoted string without escapes. */
static const char *string(header *h, size_t *n) {
  blanks(h);
  if (h->p == h->end || (*h->p != '\'' && *h->p != '"')) bad(h, "a quoted string expected");
  char quote = *h->p++;
  const char *s = h->p;
  while (h->p < h->end && *h->p != quote && *h->p != '\\' && *h->p != '\n') h->p++;
  if (h->p == h->end || *h->p != quote) bad(h, "a string does not end");
  *n = (size_t)(h->p++ - s);
  return s;
}

static bool word(header *h, const char *s) {
  blanks(h);
  size_t n = strlen(s);
  if ((size_t)(h->end - h->p) < n || memcmp(h->p, s, n) != 0) return false;
  h->p += n;
  return true;
}

static void read_descr(header *h, unsigned flags) {
  blanks(h);
  if (h->p < h->end && *h->p == '[') ir_fail(h->ctx, TN_EUNSUPPORTED, "%s: structured dtypes are not read", h->file);
  size_t n;
  const char *s = string(h, &n);
  if (n == 3)
    for (int i = 0; i < IR_COUNT(codes); i++) {
      if (memcmp(s + 1, codes[i].code, 2) != 0) continue;
      bool one = codes[i].code[1] == '1'; /* a single byte has no order */
      if (*s != '<' && *s != '=' && !(*s == '|' && (one || codes[i].dtype == TN_BF16)) && !(*s == '>' && one)) continue;
      h->dtype = codes[i].dtype;
      if (h->dtype == TN_U16 && flags & FE_NPY_U2_IS_BF16) h->dtype = TN_BF16;
      return;
    }
  ir_fail(h->ctx, TN_EUNSUPPORTED, "%s: dtype '%s' is not read (little-endian numbers only)", h->file,
          fe_show(h->ctx, s, n));
}

static void read_shape(header *h) {
  expect(h, '(');
  while (!accept(h, ')')) {
    int64_t v = 0;
    blanks(h);
    const char *start = h->p;
    for (; h->p < h->end && *h->p >= '0' && *h->p <= '9'; h->p++)
      if (!ir_mul_size(v, 10, &v) || !ir_add_size(v, *h->p - '0', &v)) bad(h, "a dimension is too large");
    if (h->p == start) bad(h, "a dimension expected");
    if (h->p < h->end && *h->p == 'L') h->p++; /* written by Python 2 */
    if (h->rank == MAX_DIMS) bad(h, "more than 64 dimensions");
    h->dims[h->rank++] = v;
    if (accept(h, ',')) continue;
    if (h->rank == 1) bad(h, "',' expected"); /* "(3)" is no tuple */
    expect(h, ')');
    break;
  }
}

static void read_header(header *h, unsigned flags) {
  enum { DESCR = 1, ORDER = 2, SHAPE = 4 };
  int seen = 0;
  expect(h, '{');
  while (!accept(h, '}')) {
    size_t n;
    const char *key = string(h, &n);
    int which = n == 5 && memcmp(key, "descr", 5) == 0            ? DESCR
                : n == 13 && memcmp(key, "fortran_order", 13) == 0 ? ORDER
                : n == 5 && memcmp(key, "shape", 5) == 0           ? SHAPE
                                                                   : 0;
    if (!which) bad(h, "an unknown key");
    if (seen & which) bad(h, "a key stands twice");
    seen |= which;
    expect(h, ':');
    if (which == DESCR) read_descr(h, flags);
    else if (which == SHAPE) read_shape(h);
    else if (word(h, "True")) h->fortran = true;
    else if (!word(h, "False")) bad(h, "True or False expected");
    if (accept(h, ',')) continue;
    expect(h, '}');
    break;
  }
  blanks(h);
  if (h->p != h->end) bad(h, "text after the dictionary");
  if (seen != (DESCR | ORDER | SHAPE)) bad(h, "descr, fortran_order or shape is missing");
}

/* ---- data ---- */

/* Fortran order (first index fastest) to C order (last index fastest). */
static void *to_c_order(tn_ctx *ctx, const char *src, const fe_array *a) {
  size_t size = ir_dtype_bytes(a->dtype), stride[MAX_DIMS], at = 0;
  int64_t index[MAX_DIMS] = {0};
  char *out = ir_alloc(ctx, a->bytes), *o = out;
  stride[0] = size;
  for (int i = 1; i < a->rank; i++) stride[i] = stride[i - 1] * (size_t)a->dims[i - 1];
  for (int64_t k = 0; k < a->count; k++, o += size) {
    memcpy(o, src + at, size);
    for (int i = a->rank - 1; i >= 0; i--) {
      at += stride[i];
      if (++index[i] < a->dims[i]) break;
      at -= stride[i] * (size_t)a->dims[i];
      index[i] = 0;
    }
  }
  return out;
}

fe_array fe_npy_parse(tn_ctx *ctx, const void *bytes, size_t n, const char *name, unsigned flags) {
  const unsigned char *s = bytes;
  if (n < 10 || memcmp(s, "\x93NUMPY", 6) != 0) ir_fail(ctx, TN_EINPUT, "%s: is no npy file", name);
  int version = s[6];
  if (version < 1 || version > 3 || s[7] != 0)
    ir_fail(ctx, TN_EINPUT, "%s: npy format version %d.%d is unknown", name, version, s[7]);
  size_t from = version == 1 ? 10 : 12;
  if (n < from) ir_fail(ctx, TN_EINPUT, "%s: the npy header is cut off", name);
  size_t length = (size_t)s[8] | (size_t)s[9] << 8;
  if (version > 1) length |= (size_t)s[10] << 16 | (size_t)s[11] << 24;
  if (length > n - from)
    ir_fail(ctx, TN_EINPUT, "%s: the npy header has %zu bytes, the file only %zu", name, length, n - from);
  const char *base = bytes;
  header h = {.ctx = ctx, .file = name, .base = base, .p = base + from, .end = base + from + length};
  read_header(&h, flags);

  fe_array a = {.name = "", .dtype = h.dtype, .rank = h.rank, .unnamed = ir_is_byte_float(h.dtype)};
  int64_t size;
  size_t rest = n - from - length;
  if (!fe_dims_count(h.dims, h.rank, &a.count) || !ir_mul_size(a.count, (int64_t)ir_dtype_bytes(h.dtype), &size))
    ir_fail(ctx, TN_EINPUT, "%s: the array's dimensions are too large", name);
  if ((uint64_t)size != rest)
    ir_fail(ctx, TN_EINPUT, "%s: the array needs %lld bytes, the file has %zu after its header", name, (long long)size, rest);
  if (h.rank) a.dims = memcpy(IR_NEW_ARRAY(ctx, int64_t, h.rank), h.dims, (size_t)h.rank * sizeof *h.dims);
  a.bytes = rest;
  if (!rest) return a;
  a.data = base + from + length;
  if (h.fortran && h.rank > 1) a.data = to_c_order(ctx, a.data, &a);
  if (a.dtype == TN_BOOL) a.data = fe_clean_bools(ctx, a.data, a.bytes);
  return a;
}

fe_array fe_npy_load(tn_ctx *ctx, const char *path, unsigned flags) {
  const fe_map *m = fe_map_file(ctx, path);
  return fe_npy_parse(ctx, m->data, m->size, path, flags);
}

void fe_npy_save(tn_ctx *ctx, const char *path, const fe_array *a) {
  const char *code = NULL;
  for (int i = 0; i < IR_COUNT(codes); i++)
    if (codes[i].dtype == (ir_is_byte_float(a->dtype) ? TN_F8E4M3FN : a->dtype)) code = codes[i].code;
  if (!code) ir_fail(ctx, TN_EUSAGE, "%s: npy has no dtype for %s", path, ir_dtype_name(a->dtype));
  if (a->rank > MAX_DIMS) ir_fail(ctx, TN_EUSAGE, "%s: npy has at most %d dimensions", path, MAX_DIMS);
  ir_assert(ctx, a->bytes == (size_t)a->count * ir_dtype_bytes(a->dtype));
  ir_text t = {.ctx = ctx};
  ir_put(&t, "{'descr': '%c%s', 'fortran_order': False, 'shape': (", code[1] == '1' ? '|' : '<', code);
  for (int i = 0; i < a->rank; i++) ir_put(&t, "%s%lld", i ? ", " : "", (long long)a->dims[i]);
  ir_put(&t, "%s), }", a->rank == 1 ? "," : "");
  /* the data begins at a multiple of 64 bytes, the header ends with a newline */
  while ((10 + t.n + 1) % 64) ir_put_bytes(&t, " ", 1);
  ir_put_bytes(&t, "\n", 1);
  char magic[10] = "\x93NUMPY\x01";
  magic[8] = (char)(t.n & 255);
  magic[9] = (char)(t.n >> 8);
  fe_writer *w = fe_write_begin(ctx, path);
  fe_write(w, magic, sizeof magic);
  fe_write(w, t.s, t.n);
  fe_write(w, a->data, a->bytes);
  fe_write_end(w);
}
