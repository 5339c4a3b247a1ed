/* The npy reader and writer. */
#include "frontend/npy.h"
#include "tests/reader_help.h"

#define NPY(name) (CORPUS "npy/" name ".npy")

static void all_types(tn_ctx *ctx, void *arg) {
  static const struct {
    const char *path;
    tn_dtype dtype;
  } cases[] = {
      {NPY("t_bool"), TN_BOOL},   {NPY("t_int8"), TN_I8},     {NPY("t_int16"), TN_I16},   {NPY("t_int32"), TN_I32},
      {NPY("t_int64"), TN_I64},   {NPY("t_uint8"), TN_U8},    {NPY("t_uint16"), TN_U16},  {NPY("t_uint32"), TN_U32},
      {NPY("t_uint64"), TN_U64},  {NPY("t_float16"), TN_F16}, {NPY("t_float32"), TN_F32}, {NPY("t_float64"), TN_F64},
  };
  static const int values[6] = {0, 1, 1, 1, 0, 1};
  for (int i = 0; i < IR_COUNT(cases); i++) {
    fe_array a = fe_npy_load(ctx, cases[i].path, 0);
    size_t n = ir_dtype_bytes(cases[i].dtype);
    cr_assert(a.dtype == cases[i].dtype && a.rank == 2 && a.dims[0] == 2 && a.dims[1] == 3, "%s", cases[i].path);
    cr_assert(a.count == 6 && a.bytes == 6 * n);
    for (int k = 0; k < 6; k++) {
      uint64_t u = 0, one = a.dtype == TN_F16 ? 0x3c00 : a.dtype == TN_F32 ? 0x3f800000 : a.dtype == TN_F64 ? 0x3ffL << 52 : 1;
      memcpy(&u, (const char *)a.data + n * (size_t)k, n);
      cr_assert_eq(u, values[k] ? one : 0);
    }
  }
}

static void shapes(tn_ctx *ctx, void *arg) {
  fe_array a = fe_npy_load(ctx, NPY("fortran"), 0);
  cr_assert(a.rank == 3 && a.dims[0] == 2 && a.dims[1] == 3 && a.dims[2] == 4);
  for (int i = 0; i < 24; i++) cr_assert_eq(((const int32_t *)a.data)[i], i);
  a = fe_npy_load(ctx, NPY("scalar"), 0);
  double d;
  cr_assert(a.rank == 0 && a.count == 1 && a.dtype == TN_F64);
  memcpy(&d, a.data, 8);
  cr_assert_eq(d, 2.5);
  a = fe_npy_load(ctx, NPY("empty"), 0);
  cr_assert(a.rank == 2 && a.count == 0 && a.dims[1] == 3 && !a.data && a.bytes == 0);
  for (int v = 2; v <= 3; v++) {
    a = fe_npy_load(ctx, v == 2 ? NPY("v2") : NPY("v3"), 0);
    cr_assert(a.dtype == TN_U16 && a.count == 3 && ((const uint16_t *)a.data)[2] == 2);
  }
  a = fe_npy_load(ctx, NPY("bf16"), 0);
  cr_assert(a.dtype == TN_BF16 && a.count == 2);
  a = fe_npy_load(ctx, NPY("v2"), FE_NPY_U2_IS_BF16);
  cr_assert_eq(a.dtype, TN_BF16);
}

Test(npy, types) { expect_status(all_types, NULL, TN_OK, NULL); }
Test(npy, shapes) { expect_status(shapes, NULL, TN_OK, NULL); }

static void round_trip(tn_ctx *ctx, void *arg) {
  const char *path = arg;
  for (tn_dtype t = TN_BOOL; t < TN_INDEX; t++)
    for (int rank = 0; rank <= 4; rank++) {
      int64_t dims[4] = {2, 1, 3, 5}, count;
      cr_assert(fe_dims_count(dims, rank, &count));
      unsigned char data[30 * 8];
      for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(t == TN_BOOL ? i % 2 : 7 * i + rank);
      fe_array a = {.name = "", .dtype = t, .rank = rank, .dims = rank ? dims : NULL, .count = count, .data = data, .bytes = (size_t)count * ir_dtype_bytes(t)};
      fe_npy_save(ctx, path, &a);
      fe_array b = fe_npy_load(ctx, path, 0);
      cr_assert(ir_is_byte_float(t) ? b.unnamed && ir_is_byte_float(b.dtype) : b.dtype == t);
      cr_assert(b.rank == rank && b.count == count && b.bytes == a.bytes);
      cr_assert_eq((uintptr_t)b.data % 64, 0);
      cr_assert_eq(memcmp(b.data, data, b.bytes), 0);
      cr_assert(rank == 0 || memcmp(b.dims, dims, 8 * (size_t)rank) == 0);
    }
}

static void save_index(tn_ctx *ctx, void *path) { fe_npy_save(ctx, path, &(fe_array){.dtype = TN_INDEX, .name = ""}); }

Test(npy, round_trip) {
  char *dir = make_folder();
  expect_status(round_trip, (void *)in_folder(dir, "a.npy"), TN_OK, NULL);
  expect_status(save_index, (void *)in_folder(dir, "b.npy"), TN_EUSAGE, "index");
  cr_assert_neq(access(in_folder(dir, "b.npy"), F_OK), 0);
  drop_folder(dir);
}

/* ---- bad files ---- */

static void parse(tn_ctx *ctx, void *arg) {
  blob *b = arg;
  fe_npy_parse(ctx, b->data, b->n, "bad.npy", 0);
}

static void header(const char *text, size_t data_bytes, tn_status status, const char *message) {
  static const char zeros[64];
  char file[1024] = "\x93NUMPY\x01";
  size_t n = strlen(text);
  file[8] = (char)n;
  memcpy(file + 10, text, n);
  memcpy(file + 10 + n, zeros, data_bytes);
  expect_status(parse, &(blob){file, 10 + n + data_bytes}, status, message);
}

#define HEAD(descr, order, shape) "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape "}"

Test(npy, headers) {
  header(HEAD("'<f4'", "False", "(2,)"), 8, TN_OK, NULL);
  header("{\"shape\":(2L,3L),\"fortran_order\":True,\"descr\":'<u2',}  \n", 12, TN_OK, NULL);
  header(HEAD("'<f4'", "False", "()"), 4, TN_OK, NULL);
  header(HEAD("'=f4'", "False", "(1,1)"), 4, TN_OK, NULL);
  header(HEAD("'<f4'", "False", "(2,)"), 7, TN_EINPUT, "needs 8 bytes, the file has 7");
  header(HEAD("'<f4'", "False", "(2,)"), 9, TN_EINPUT, "needs 8 bytes, the file has 9");
  header(HEAD("'<f4'", "False", "(2)"), 8, TN_EINPUT, "',' expected");
  header(HEAD("'<f4'", "False", "(2,,)"), 8, TN_EINPUT, "a dimension expected");
  header(HEAD("'<f4'", "False", "(,)"), 8, TN_EINPUT, "a dimension expected");
  header(HEAD("'<f4'", "False", "(-2,)"), 8, TN_EINPUT, "a dimension expected");
  header(HEAD("'<f4'", "False", "(2,"), 8, TN_EINPUT, "byte ");
  header(HEAD("'<f4'", "False", "(9223372036854775807,)"), 8, TN_EINPUT, "too large");
  header(HEAD("'<f4'", "False", "(9223372036854775808,)"), 8, TN_EINPUT, "too large");
  header(HEAD("'<f4'", "False", "(4611686018427387904,4)"), 8, TN_EINPUT, "too large");
  header(HEAD("'<f4'", "False", "(9223372036854775807,0)"), 0, TN_OK, NULL);
  header(HEAD("'<f4'", "Maybe", "(2,)"), 8, TN_EINPUT, "True or False");
  header(HEAD("'>f4'", "False", "(2,)"), 8, TN_EUNSUPPORTED, "dtype '>f4'");
  header(HEAD("'<c8'", "False", "(1,)"), 8, TN_EUNSUPPORTED, "dtype '<c8'");
  header(HEAD("'|S3'", "False", "(1,)"), 3, TN_EUNSUPPORTED, "dtype");
  header(HEAD("'|O'", "False", "(1,)"), 8, TN_EUNSUPPORTED, "dtype");
  header(HEAD("[('a', '<f4')]", "False", "(1,)"), 4, TN_EUNSUPPORTED, "structured");
  header("{'descr': '<f4", 4, TN_EINPUT, "a string does not end");
  header("{'descr': '<f4', 'shape': (1,)}", 4, TN_EINPUT, "missing");
  header("{'descr': '<f4', 'descr': '<f4', 'shape': (1,)}", 4, TN_EINPUT, "twice");
  header("{'what': 1}", 4, TN_EINPUT, "unknown key");
  header("", 4, TN_EINPUT, "'{' expected");
  header(HEAD("'<f4'", "False", "(1,)") "x", 4, TN_EINPUT, "text after");
  char many[700] = "{'descr': '|u1', 'fortran_order': True, 'shape': (";
  for (int i = 0; i < 65; i++) strcat(many, "1,");
  strcat(many, ")}");
  header(many, 1, TN_EINPUT, "64 dimensions");
  expect_status(parse, &(blob){BYTES("")}, TN_EINPUT, "no npy file");
  expect_status(parse, &(blob){BYTES("\x93NUMPY\x04\x00\x00\x00{}")}, TN_EINPUT, "version 4.0");
  expect_status(parse, &(blob){BYTES("\x93NUMPY\x01\x00\xff\xff{}")}, TN_EINPUT, "has 65535 bytes");
  expect_status(parse, &(blob){BYTES("\x93NUMPY\x02\x00\xff\xff\xff")}, TN_EINPUT, "cut off");
}

Test(npy, mauled) {
  static const char *const paths[] = {NPY("t_bool"), NPY("fortran"), NPY("empty"), NPY("v2"), NPY("record")};
  for (int i = 0; i < IR_COUNT(paths); i++) cr_assert_gt(maul(paths[i], parse), 100);
}

static void load(tn_ctx *ctx, void *path) { fe_npy_load(ctx, path, 0); }
Test(npy, starved) {
  starve(load, (void *)NPY("fortran"));
  expect_status(load, (void *)NPY("none"), TN_ERESOURCE, "none.npy: cannot be opened");
}
