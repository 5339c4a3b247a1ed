/* The safetensors reader and writer. */
#include "frontend/safetensors.h"
#include "tests/reader_help.h"

#define SAFE(name) (CORPUS "safetensors/" name ".safetensors")

static void plain(tn_ctx *ctx, void *arg) {
  const fe_safetensors *s = fe_safetensors_load(ctx, SAFE("plain"));
  cr_assert_eq(s->n, 3);
  cr_assert_str_eq(s->items[0].name, "b");
  cr_assert_str_eq(s->items[1].name, "e");
  cr_assert_str_eq(s->items[2].name, "w");
  const fe_array *w = fe_safetensors_get(ctx, s, "w");
  cr_assert(w->dtype == TN_F32 && w->rank == 2 && w->dims[0] == 2 && w->dims[1] == 3 && w->bytes == 24);
  float x[6];
  memcpy(x, w->data, 24);
  for (int i = 0; i < 6; i++) cr_assert_eq(x[i], (float)(i + 1));
  const fe_array *b = fe_safetensors_find(s, "b");
  int64_t v;
  memcpy(&v, b->data, 8);
  cr_assert(b->rank == 0 && b->count == 1 && v == -9);
  const fe_array *e = fe_safetensors_find(s, "e");
  cr_assert(e->dtype == TN_F16 && e->count == 0 && e->bytes == 0 && e->dims[1] == 7);
  cr_assert_null(fe_safetensors_find(s, "nothing"));
  cr_assert_eq(s->n_meta, 2);
  cr_assert_str_eq(s->meta[0], "format");
  cr_assert_str_eq(s->meta[1], "pt");
  cr_assert_str_eq(s->meta[2], "a\"b");
  cr_assert_str_eq(s->meta[3], "\xc3\xa4\xf0\x9f\x98\x80");
  s = fe_safetensors_load(ctx, SAFE("escapes"));
  cr_assert_str_eq(s->items[0].name, "a\n\xf0\x9f\x98\x80");
  s = fe_safetensors_load(ctx, SAFE("none"));
  cr_assert_eq(s->n, 0);
  fe_safetensors_get(ctx, s, "weight"); /* throws */
}

static void types(tn_ctx *ctx, void *arg) {
  const fe_safetensors *s = fe_safetensors_load(ctx, SAFE("types"));
  cr_assert_eq(s->n, 15);
  static const struct {
    const char *name;
    tn_dtype dtype;
  } cases[] = {{"t.BOOL", TN_BOOL}, {"t.U8", TN_U8},     {"t.I8", TN_I8},     {"t.I16", TN_I16}, {"t.U16", TN_U16},
               {"t.F16", TN_F16},   {"t.BF16", TN_BF16}, {"t.I32", TN_I32},   {"t.U32", TN_U32}, {"t.F32", TN_F32},
               {"t.F64", TN_F64},   {"t.I64", TN_I64},   {"t.U64", TN_U64},   {"t.NEW", TN_NONE}, {"t.F8_E4M3", TN_F8E4M3FN}};
  for (int i = 0; i < IR_COUNT(cases); i++) {
    const fe_array *a = fe_safetensors_find(s, cases[i].name);
    cr_assert(a && a->dtype == cases[i].dtype && a->count == 2, "%s", cases[i].name);
    cr_assert_str_eq(s->type_names[a - s->items], cases[i].name + 2);
  }
  fe_safetensors_get(ctx, s, "t.NEW"); /* throws */
}

Test(safetensors, plain) { expect_status(plain, NULL, TN_EINPUT, "has no tensor 'weight'"); }
Test(safetensors, types) { expect_status(types, NULL, TN_EUNSUPPORTED, "tensor 't.NEW' has dtype 'NEW'"); }

static void round_trip(tn_ctx *ctx, void *path) {
  unsigned char data[256];
  for (int i = 0; i < 256; i++) data[i] = (unsigned char)(i % 2);
  fe_array items[TN_F64 + 1];
  int64_t dims[2] = {3, 1};
  int n = 0;
  for (tn_dtype t = TN_BOOL; t <= TN_F64; t++)
    items[n++] = (fe_array){ir_format(ctx, "layer.%d \"\\\x01\xc3\xa4", 100 - (int)t), t, 2, dims, 3, data + t,
                            .bytes = 3 * ir_dtype_bytes(t)};
  items[n++] = (fe_array){"", TN_F32, 0, NULL, 1, data, .bytes = 4};
  const char *meta[] = {"format", "tenon", "k", ""};
  fe_safetensors_save(ctx, path, items, n, meta, 2);
  const fe_safetensors *s = fe_safetensors_load(ctx, path);
  cr_assert(s->n == n && s->n_meta == 2);
  cr_assert_str_eq(s->meta[3], "");
  for (int i = 0; i < n; i++) {
    const fe_array *a = fe_safetensors_find(s, items[i].name);
    cr_assert(a && a->dtype == items[i].dtype && a->rank == items[i].rank && a->bytes == items[i].bytes);
    cr_assert_eq(memcmp(a->data, items[i].data, a->bytes), 0);
    cr_assert_eq((uintptr_t)a->data % ir_dtype_bytes(a->dtype), 0);
  }
  fe_safetensors_save(ctx, path, NULL, 0, NULL, 0);
  cr_assert_eq(fe_safetensors_load(ctx, path)->n, 0);
}

typedef struct pair {
  const char *path, *a, *b;
  tn_dtype dtype;
} pair;

static void save_two(tn_ctx *ctx, void *arg) {
  pair *p = arg;
  fe_array items[2] = {{p->a, p->dtype, 0, NULL, 1, "12345678", .bytes = 1}, {p->b, TN_U8, 0, NULL, 1, "1", .bytes = 1}};
  fe_safetensors_save(ctx, p->path, items, 2, NULL, 0);
}

Test(safetensors, round_trip) {
  char *dir = make_folder();
  const char *path = in_folder(dir, "a.safetensors");
  expect_status(round_trip, (void *)path, TN_OK, NULL);
  expect_status(save_two, &(pair){path, "x", "y", TN_U8}, TN_OK, NULL);
  expect_status(save_two, &(pair){path, "x", "x", TN_U8}, TN_EUSAGE, "'x' is reserved or stands twice");
  expect_status(save_two, &(pair){path, "__metadata__", "x", TN_U8}, TN_EUSAGE, "reserved");
  expect_status(save_two, &(pair){path, "\xff", "x", TN_U8}, TN_EUSAGE, "no UTF-8");
  expect_status(save_two, &(pair){path, "x", "y", TN_NONE}, TN_EUSAGE, "lacks");
  drop_folder(dir);
}

/* ---- bad files ---- */

static void parse(tn_ctx *ctx, void *arg) {
  blob *b = arg;
  fe_safetensors_parse(ctx, b->data, b->n, "bad.safetensors");
}

static void header(const char *text, size_t data_bytes, tn_status status, const char *message) {
  char file[2048] = {0};
  uint64_t n = strlen(text);
  memcpy(file, &n, 8);
  memcpy(file + 8, text, n);
  expect_status(parse, &(blob){file, 8 + n + data_bytes}, status, message);
}

#define T(name, type, shape, offsets) "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

Test(safetensors, headers) {
  header("{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[]", "[2,3]") "}", 3, TN_OK, NULL);
  header(" {}", 0, TN_EINPUT, "'{' expected (byte 8)");
  header("{}  ", 0, TN_OK, NULL);
  header("{}x", 0, TN_EINPUT, "text after");
  header("{", 0, TN_EINPUT, "");
  header("{}", 1, TN_EINPUT, "1 bytes at the end belong to no tensor");
  header("[]", 0, TN_EINPUT, "'{' expected");
  header("{" T("a", "U8", "[2]", "[0,2]") ",}", 2, TN_EINPUT, "'\"' expected");
  header("{" T("a", "U8", "[2]", "[0,2]") "," T("a", "U8", "[1]", "[2,3]") "}", 3, TN_EINPUT, "tensor 'a': stands twice");
  header("{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[1,3]") "}", 3, TN_EINPUT, "tensor 'b': overlaps");
  header("{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[0,2]") "}", 2, TN_EINPUT, "overlaps");
  header("{" T("a", "U8", "[1]", "[0,1]") "," T("b", "U8", "[1]", "[2,3]") "}", 3, TN_EINPUT, "unused bytes");
  header("{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[0]", "[2,2]") "}", 2, TN_OK, NULL);
  header("{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[0]", "[1,1]") "}", 2, TN_EINPUT, "");
  header("{" T("a", "U8", "[2]", "[2,0]") "}", 2, TN_EINPUT, "lie outside");
  header("{" T("a", "U8", "[2]", "[0,3]") "}", 2, TN_EINPUT, "lie outside");
  header("{" T("a", "F32", "[2]", "[0,4]") "}", 4, TN_EINPUT, "has 4 bytes");
  header("{" T("a", "F4", "[3]", "[0,2]") "}", 2, TN_EINPUT, "has 2 bytes");
  header("{" T("a", "F32", "[4611686018427387904,4]", "[0,0]") "}", 0, TN_EINPUT, "too large");
  header("{" T("a", "F32", "[2305843009213693952]", "[0,0]") "}", 0, TN_EINPUT, "dtype and shape");
  header("{" T("a", "F32", "[9223372036854775807,0]", "[0,0]") "}", 0, TN_OK, NULL);
  header("{" T("a", "U8", "[9223372036854775808]", "[0,0]") "}", 0, TN_EINPUT, "a number is too large");
  header("{" T("a", "U8", "[-1]", "[0,1]") "}", 1, TN_EINPUT, "non-negative integer");
  header("{" T("a", "U8", "[1.0]", "[0,1]") "}", 1, TN_EINPUT, "']' expected");
  header("{" T("a", "U8", "[01]", "[0,1]") "}", 1, TN_EINPUT, "begins with 0");
  header("{" T("a", "U8", "[1", "[0,1]") "}", 1, TN_EINPUT, "non-negative integer");
  header("{" T("a", "U8", "[1]", "[0]") "}", 1, TN_EINPUT, "',' expected");
  header("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, TN_EINPUT, "missing");
  header("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", 1, TN_EINPUT, "dtype stands twice");
  header("{\"a\":{\"color\":\"U8\"}}", 1, TN_EINPUT, "a key other than");
  header("{\"a\":{}}", 1, TN_EINPUT, "");
  header("{\"a\":null}", 1, TN_EINPUT, "'{' expected");
  header("{\"__metadata__\":{\"a\":1}}", 0, TN_EINPUT, "'\"' expected");
  header("{\"__metadata__\":{},\"__metadata__\":{}}", 0, TN_EINPUT, "stands twice");
  header("{\"__metadata__\":{\"a\":\"b\"}}", 0, TN_OK, NULL);
}

Test(safetensors, strings) {
#define NAMED(s) "{" T(s, "U8", "[1]", "[0,1]") "}"
  header(NAMED("\\u00e4\\\\\\/\\b\\f\\n\\r\\t\\\""), 1, TN_OK, NULL);
  header(NAMED("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"), 1, TN_OK, NULL);
  header(NAMED("\\x"), 1, TN_EINPUT, "unknown escape");
  header(NAMED("\\u12g4"), 1, TN_EINPUT, "hexadecimal");
  header(NAMED("\\u0000"), 1, TN_EINPUT, "zero character");
  header(NAMED("\\ud800"), 1, TN_EINPUT, "surrogate");
  header(NAMED("\\ud800\\u0041"), 1, TN_EINPUT, "surrogate");
  header(NAMED("\\udc00"), 1, TN_EINPUT, "surrogate");
  header(NAMED("\x01"), 1, TN_EINPUT, "control character");
  header(NAMED("\xc0\x80"), 1, TN_EINPUT, "UTF-8");
  header(NAMED("\xe0\x80\x80"), 1, TN_EINPUT, "UTF-8");
  header(NAMED("\xed\xa0\x80"), 1, TN_EINPUT, "UTF-8");
  header(NAMED("\xf4\x90\x80\x80"), 1, TN_EINPUT, "UTF-8");
  header(NAMED("\xf0\x8f\x80\x80"), 1, TN_EINPUT, "UTF-8");
  header(NAMED("\xe2\x82"), 1, TN_EINPUT, "UTF-8");
  header("{\"abc", 0, TN_EINPUT, "a string does not end");
  header("{\"abc\\", 0, TN_EINPUT, "a string does not end");
  header("{\"abc\\\"", 0, TN_EINPUT, "a string does not end");
}

Test(safetensors, lengths) {
  expect_status(parse, &(blob){BYTES("")}, TN_EINPUT, "too short");
  expect_status(parse, &(blob){BYTES("\x02\0\0\0\0\0\0")}, TN_EINPUT, "too short");
  expect_status(parse, &(blob){BYTES("\x03\0\0\0\0\0\0\0{}")}, TN_EINPUT, "header of 3 bytes");
  expect_status(parse, &(blob){BYTES("\xff\xff\xff\xff\xff\xff\xff\xff{}")}, TN_EINPUT, "does not fit");
  expect_status(parse, &(blob){BYTES("\0\0\0\0\0\0\0\0{}")}, TN_EINPUT, "'{' expected");
}

Test(safetensors, mauled) {
  static const char *const paths[] = {SAFE("plain"), SAFE("types"), SAFE("escapes"), SAFE("none")};
  for (int i = 0; i < IR_COUNT(paths); i++) cr_assert_gt(maul(paths[i], parse), 10);
}

static void load(tn_ctx *ctx, void *path) { fe_safetensors_load(ctx, path); }
Test(safetensors, starved) {
  starve(load, (void *)SAFE("plain"));
  expect_status(load, (void *)SAFE("nothing"), TN_ERESOURCE, "nothing.safetensors: cannot be opened");
}
