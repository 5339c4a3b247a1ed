/* safetensors.c — reads and writes safetensors files, with a JSON parser of its own.
 *
 * The header's grammar has a fixed depth, so the parser is three nested loops and needs no
 * recursion: object of (name: object of dtype, shape, data_offsets) and one object of strings.
 */
#include "frontend/safetensors.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* 8: bits of one element; 0: not checked. Names as in the reference implementation. */
static const struct {
  const char *name;
  tn_dtype dtype;
  int bits;
} types[] = {
    {"BOOL", TN_BOOL, 8}, {"U8", TN_U8, 8},    {"I8", TN_I8, 8},    {"I16", TN_I16, 16}, {"U16", TN_U16, 16},
    {"F16", TN_F16, 16},  {"BF16", TN_BF16, 16}, {"I32", TN_I32, 32}, {"U32", TN_U32, 32}, {"F32", TN_F32, 32},
    {"F64", TN_F64, 64},  {"I64", TN_I64, 64}, {"U64", TN_U64, 64},
    {"F4", TN_NONE, 4},   {"F6_E2M3", TN_NONE, 6}, {"F6_E3M2", TN_NONE, 6}, {"F8_E5M2", TN_F8E5M2, 8},
    {"F8_E4M3", TN_F8E4M3FN, 8}, {"F8_E8M0", TN_NONE, 8}, {"C64", TN_NONE, 64},
};

/* ---- JSON ---- */

typedef struct json {
  tn_ctx *ctx;
  const char *file;
  const unsigned char *base, *p, *end;
} json;

static void IR_NORETURN bad(json *j, const char *reason) {
  ir_fail(j->ctx, TN_EINPUT, "%s: safetensors header: %s (byte %zu)", j->file, reason, (size_t)(j->p - j->base));
}

static void blanks(json *j) {
  while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r')) j->p++;
}

static bool accept(json *j, char c) {
  blanks(j);
  if (j->p == j->end || *j->p != (unsigned char)c) return false;
  j->p++;
  return true;
}

static void expect(json *j, char c) {
  if (!accept(j, c)) bad(j, ir_format(j->ctx, "'%c' expected", c));
}

/* Bytes of the UTF-8 character at p, 0 when it is malformed: overlong, a surrogate, above
 * U+10FFFF or cut off (RFC 3629). */
static size_t utf8(const unsigned char *p, const unsigned char *end) {
  size_t left = (size_t)(end - p);
  if (!left) return 0;
  if (p[0] < 0x80) return 1;
  size_t n = p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
  if (!n || n > left) return 0;
  for (size_t i = 1; i < n; i++)
    if ((p[i] & 0xc0) != 0x80) return 0;
  if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf0 && p[1] < 0x90) ||
      (p[0] == 0xf4 && p[1] >= 0x90))
    return 0;
  return n;
}

static unsigned hex4(json *j) {
  unsigned v = 0;
  for (int i = 0; i < 4; i++, j->p++) {
    unsigned c = j->p < j->end ? *j->p : 0;
    unsigned d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 16;
    if (d == 16) bad(j, "four hexadecimal digits expected");
    v = v << 4 | d;
  }
  return v;
}

/* \uXXXX, also as a pair of surrogates; at most 4 bytes of UTF-8 for 6 or 12 read. */
static char *put_escape(json *j, char *out) {
  unsigned c = hex4(j);
  if (c >= 0xdc00 && c < 0xe000) bad(j, "half a surrogate pair");
  if (c >= 0xd800 && c < 0xdc00) {
    if (j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u') bad(j, "half a surrogate pair");
    j->p += 2;
    unsigned low = hex4(j);
    if (low < 0xdc00 || low >= 0xe000) bad(j, "half a surrogate pair");
    c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
  }
  if (c == 0) bad(j, "a zero character in a string");
  if (c < 0x80) *out++ = (char)c;
  else if (c < 0x800) *out++ = (char)(0xc0 | c >> 6), *out++ = (char)(0x80 | (c & 63));
  else if (c < 0x10000)
    *out++ = (char)(0xe0 | c >> 12), *out++ = (char)(0x80 | (c >> 6 & 63)), *out++ = (char)(0x80 | (c & 63));
  else
    *out++ = (char)(0xf0 | c >> 18), *out++ = (char)(0x80 | (c >> 12 & 63)), *out++ = (char)(0x80 | (c >> 6 & 63)),
    *out++ = (char)(0x80 | (c & 63));
  return out;
}

static const char *string(json *j) {
  expect(j, '"');
  const unsigned char *close = j->p; /* decoding never makes it longer */
  while (close < j->end && *close != '"') close += *close == '\\' && close + 1 < j->end ? 2 : 1;
  if (close >= j->end) bad(j, "a string does not end");
  char *text = ir_alloc(j->ctx, (size_t)(close - j->p) + 1), *o = text;
  while (j->p < close) {
    if (*j->p == '\\') {
      static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
      int c = j->p[1]; /* exists: close lies behind it */
      const char *at = c ? strchr(from, c) : NULL;
      j->p += 2;
      if (c == 'u') o = put_escape(j, o);
      else if (at) *o++ = to[at - from];
      else bad(j, "an unknown escape");
      continue;
    }
    size_t n = utf8(j->p, close);
    if (*j->p < 0x20) bad(j, "a control character in a string");
    if (!n) bad(j, "malformed UTF-8");
    memcpy(o, j->p, n);
    o += n;
    j->p += n;
  }
  j->p = close + 1;
  return text;
}

/* A non-negative integer that fits int64; signs, fractions and exponents are refused. */
static int64_t number(json *j) {
  blanks(j);
  const unsigned char *start = j->p;
  int64_t v = 0;
  for (; j->p < j->end && *j->p >= '0' && *j->p <= '9'; j->p++)
    if (!ir_mul_size(v, 10, &v) || !ir_add_size(v, *j->p - '0', &v)) bad(j, "a number is too large");
  if (j->p == start) bad(j, "a non-negative integer expected");
  if (*start == '0' && j->p - start > 1) bad(j, "a number begins with 0");
  return v;
}

/* ---- reading ---- */

typedef struct entry {
  fe_array a;
  const char *type;
  int64_t begin, end; /* in the data */
} entry;

static void read_meta(json *j, fe_safetensors *s) {
  const char **meta = NULL;
  int n = 0;
  expect(j, '{');
  if (!accept(j, '}')) {
    do {
      const char *key = string(j);
      expect(j, ':');
      const char *value = string(j);
      IR_PUSH(j->ctx, meta, n, key);
      IR_PUSH(j->ctx, meta, n, value);
    } while (accept(j, ','));
    expect(j, '}');
  }
  s->meta = meta;
  s->n_meta = n / 2;
}

static void read_shape(json *j, fe_array *a) {
  int64_t *dims = NULL;
  int n = 0;
  expect(j, '[');
  if (!accept(j, ']')) {
    do {
      int64_t d = number(j);
      IR_PUSH(j->ctx, dims, n, d);
    } while (accept(j, ','));
    expect(j, ']');
  }
  a->rank = n;
  a->dims = dims;
}

static void read_entry(json *j, entry *e) {
  enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
  int seen = 0;
  expect(j, '{');
  do {
    const char *key = string(j);
    int which = strcmp(key, "dtype") == 0 ? DTYPE : strcmp(key, "shape") == 0 ? SHAPE : strcmp(key, "data_offsets") == 0 ? OFFSETS : 0;
    if (!which) bad(j, "a key other than dtype, shape, data_offsets");
    if (seen & which) bad(j, ir_format(j->ctx, "%s stands twice", key));
    seen |= which;
    expect(j, ':');
    if (which == DTYPE) {
      e->type = string(j);
    } else if (which == SHAPE) {
      read_shape(j, &e->a);
    } else {
      expect(j, '[');
      e->begin = number(j);
      expect(j, ',');
      e->end = number(j);
      expect(j, ']');
    }
  } while (accept(j, ','));
  expect(j, '}');
  if (seen != (DTYPE | SHAPE | OFFSETS)) bad(j, "dtype, shape or data_offsets is missing");
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const entry *)a)->a.name, ((const entry *)b)->a.name);
}

static int by_place(const void *a, const void *b) {
  const entry *x = *(entry *const *)a, *y = *(entry *const *)b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

static void IR_NORETURN bad_entry(json *j, const entry *e, const char *reason) {
  ir_fail(j->ctx, TN_EINPUT, "%s: tensor '%s': %s", j->file, fe_show(j->ctx, e->a.name, strlen(e->a.name)), reason);
}

/* Dtype and size; the data is not looked at, except booleans. */
static void check_entry(json *j, entry *e, const unsigned char *data, int64_t size) {
  if (e->begin > e->end || e->end > size)
    bad_entry(j, e, ir_format(j->ctx, "data offsets [%lld, %lld] lie outside the %lld bytes of data", (long long)e->begin,
                              (long long)e->end, (long long)size));
  e->a.bytes = (size_t)(e->end - e->begin);
  if (e->a.bytes) e->a.data = data + e->begin;
  if (!fe_dims_count(e->a.dims, e->a.rank, &e->a.count)) bad_entry(j, e, "its dimensions are too large");
  for (int i = 0; i < IR_COUNT(types); i++) {
    if (strcmp(types[i].name, e->type) != 0) continue;
    int64_t bits;
    if (!ir_mul_size(e->a.count, types[i].bits, &bits) || bits % 8 || (uint64_t)bits / 8 != e->a.bytes)
      bad_entry(j, e, ir_format(j->ctx, "has %zu bytes, which is not what its dtype and shape need", e->a.bytes));
    e->a.dtype = types[i].dtype;
  }
  if (e->a.dtype == TN_BOOL && e->a.bytes) e->a.data = fe_clean_bools(j->ctx, e->a.data, e->a.bytes);
}

const fe_safetensors *fe_safetensors_parse(tn_ctx *ctx, const void *bytes, size_t n, const char *name) {
  const unsigned char *base = bytes;
  uint64_t length;
  if (n < 8) ir_fail(ctx, TN_EINPUT, "%s: is too short to be a safetensors file", name);
  memcpy(&length, base, 8);
  if (length > FE_SAFETENSORS_HEADER_MAX || length > n - 8)
    ir_fail(ctx, TN_EINPUT, "%s: a safetensors header of %llu bytes does not fit the file or the limit of %d", name,
            (unsigned long long)length, FE_SAFETENSORS_HEADER_MAX);
  json j = {ctx, name, base, base + 8, base + 8 + length};
  const unsigned char *data = j.end;
  int64_t size = (int64_t)(n - 8 - length), cursor = 0;
  fe_safetensors *s = IR_NEW(ctx, fe_safetensors);
  s->file = ir_strdup(ctx, name);
  entry *list = NULL;
  bool has_meta = false;
  if (j.p == j.end || *j.p != '{') bad(&j, "'{' expected");
  j.p++;
  if (!accept(&j, '}')) {
    do {
      const char *key = string(&j);
      expect(&j, ':');
      if (strcmp(key, "__metadata__") == 0) {
        if (has_meta) bad(&j, "__metadata__ stands twice");
        has_meta = true;
        read_meta(&j, s);
        continue;
      }
      entry e = {.a.name = key};
      read_entry(&j, &e);
      check_entry(&j, &e, data, size);
      if (s->n == INT_MAX / 2) bad(&j, "too many tensors");
      IR_PUSH(ctx, list, s->n, e);
    } while (accept(&j, ','));
    expect(&j, '}');
  }
  blanks(&j);
  if (j.p != j.end) bad(&j, "text after the object");

  if (s->n) qsort(list, (size_t)s->n, sizeof *list, by_name);
  fe_array *items = IR_NEW_ARRAY(ctx, fe_array, s->n);
  const char **names = IR_NEW_ARRAY(ctx, const char *, s->n);
  entry **placed = IR_NEW_ARRAY(ctx, entry *, s->n);
  for (int i = 0; i < s->n; i++) {
    if (i && strcmp(list[i].a.name, list[i - 1].a.name) == 0) bad_entry(&j, &list[i], "stands twice");
    items[i] = list[i].a;
    names[i] = list[i].type;
    placed[i] = &list[i];
  }
  if (s->n) qsort(placed, (size_t)s->n, sizeof *placed, by_place);
  for (int i = 0; i < s->n; i++) {
    if (placed[i]->begin < cursor) bad_entry(&j, placed[i], "overlaps another tensor");
    if (placed[i]->begin > cursor) bad_entry(&j, placed[i], "unused bytes lie before its data");
    cursor = placed[i]->end;
  }
  if (cursor != size) ir_fail(ctx, TN_EINPUT, "%s: %lld bytes at the end belong to no tensor", name, (long long)(size - cursor));
  s->items = items;
  s->type_names = names;
  return s;
}

const fe_safetensors *fe_safetensors_load(tn_ctx *ctx, const char *path) {
  const fe_map *m = fe_map_file(ctx, path);
  return fe_safetensors_parse(ctx, m->data, m->size, path);
}

static int find(const fe_safetensors *s, const char *name) {
  for (int low = 0, high = s->n; low < high;) {
    int middle = low + (high - low) / 2, c = strcmp(name, s->items[middle].name);
    if (c == 0) return middle;
    if (c < 0) high = middle;
    else low = middle + 1;
  }
  return -1;
}

const fe_array *fe_safetensors_find(const fe_safetensors *s, const char *name) {
  int i = find(s, name);
  return i < 0 ? NULL : &s->items[i];
}

const fe_array *fe_safetensors_get(tn_ctx *ctx, const fe_safetensors *s, const char *name) {
  int i = find(s, name);
  if (i < 0) ir_fail(ctx, TN_EINPUT, "%s: has no tensor '%s'", s->file, fe_show(ctx, name, strlen(name)));
  if (s->items[i].dtype == TN_NONE)
    ir_fail(ctx, TN_EUNSUPPORTED, "%s: tensor '%s' has dtype '%s', which Tenon has not", s->file,
            fe_show(ctx, name, strlen(name)), fe_show(ctx, s->type_names[i], strlen(s->type_names[i])));
  return &s->items[i];
}

/* ---- writing ---- */

static void put_string(ir_text *t, const char *path, const char *s) {
  const unsigned char *p = (const unsigned char *)s, *end = p + strlen(s);
  ir_put_bytes(t, "\"", 1);
  while (p < end) {
    size_t n = utf8(p, end);
    if (!n) ir_fail(t->ctx, TN_EUSAGE, "%s: the name '%s' is no UTF-8", path, fe_show(t->ctx, s, strlen(s)));
    if (*p == '"' || *p == '\\') ir_put(t, "\\%c", *p);
    else if (*p < 0x20) ir_put(t, "\\u%04x", *p);
    else ir_put_bytes(t, (const char *)p, n);
    p += n;
  }
  ir_put_bytes(t, "\"", 1);
}

/* Wider types first, so that each begins at a multiple of its size; then by name. */
static int by_width(const void *a, const void *b) {
  const fe_array *x = *(const fe_array *const *)a, *y = *(const fe_array *const *)b;
  int d = ir_dtype_bits(y->dtype) - ir_dtype_bits(x->dtype);
  return d ? d : strcmp(x->name, y->name);
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

void fe_safetensors_save(tn_ctx *ctx, const char *path, const fe_array *items, int n, const char *const *meta,
                         int n_meta) {
  const fe_array **order = IR_NEW_ARRAY(ctx, const fe_array *, n);
  const char **names = IR_NEW_ARRAY(ctx, const char *, n);
  for (int i = 0; i < n; i++) order[i] = &items[i], names[i] = items[i].name;
  if (n) qsort(order, (size_t)n, sizeof *order, by_width);
  if (n) qsort(names, (size_t)n, sizeof *names, by_text);
  for (int i = 0; i < n; i++)
    if (strcmp(names[i], "__metadata__") == 0 || (i && strcmp(names[i], names[i - 1]) == 0))
      ir_fail(ctx, TN_EUSAGE, "%s: the tensor name '%s' is reserved or stands twice", path, fe_show(ctx, names[i], strlen(names[i])));
  ir_text t = {.ctx = ctx};
  uint64_t at = 0;
  const char *comma = "";
  ir_put_bytes(&t, "{", 1);
  if (n_meta) {
    ir_put(&t, "\"__metadata__\":{");
    for (int i = 0; i < n_meta; i++, comma = ",") {
      ir_put(&t, "%s", comma);
      put_string(&t, path, meta[2 * i]);
      ir_put_bytes(&t, ":", 1);
      put_string(&t, path, meta[2 * i + 1]);
    }
    ir_put_bytes(&t, "}", 1);
  }
  for (int i = 0; i < n; i++, comma = ",") {
    const fe_array *a = order[i];
    const char *type = NULL;
    for (int k = 0; k < IR_COUNT(types); k++)
      if (types[k].dtype == a->dtype && a->dtype != TN_NONE) type = types[k].name;
    if (!type) ir_fail(ctx, TN_EUSAGE, "%s: tensor '%s' has a dtype that safetensors lacks", path, fe_show(ctx, a->name, strlen(a->name)));
    ir_assert(ctx, a->bytes == (size_t)a->count * ir_dtype_bytes(a->dtype));
    ir_put(&t, "%s", comma);
    put_string(&t, path, a->name);
    ir_put(&t, ":{\"dtype\":\"%s\",\"shape\":[", type);
    for (int k = 0; k < a->rank; k++) ir_put(&t, "%s%lld", k ? "," : "", (long long)a->dims[k]);
    ir_put(&t, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)(at + a->bytes));
    at += a->bytes;
  }
  ir_put_bytes(&t, "}", 1);
  while (t.n % 8) ir_put_bytes(&t, " ", 1);
  if (t.n > FE_SAFETENSORS_HEADER_MAX) ir_fail(ctx, TN_EUSAGE, "%s: the header would be larger than the format allows", path);
  uint64_t length = t.n;
  fe_writer *w = fe_write_begin(ctx, path);
  fe_write(w, &length, 8);
  fe_write(w, t.s, t.n);
  for (int i = 0; i < n; i++) fe_write(w, order[i]->data, order[i]->bytes);
  fe_write_end(w);
}
