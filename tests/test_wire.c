/* Files and the wire format. */
#include "frontend/file.h"
#include "frontend/wire.h"
#include "tests/reader_help.h"
#include <dirent.h>

/* ---- files ---- */

static void map_only(tn_ctx *ctx, void *path) {
  const fe_map *m = fe_map_file(ctx, path);
  cr_assert_not_null(m->data);
  cr_assert_str_eq(m->path, path);
}

typedef struct inside {
  const char *folder, *location;
} inside;

static void map_inside(tn_ctx *ctx, void *arg) {
  inside *in = arg;
  const fe_map *m = fe_map_inside(ctx, in->folder, in->location, "m.onnx");
  cr_assert_eq(m->size, 5);
  cr_assert_eq(memcmp(m->data, "hello", 5), 0);
  fe_map_drop(m, m->data, m->size);
  cr_assert_eq(memcmp(m->data, "hello", 5), 0);
}

Test(file, map) {
  char *dir = make_folder();
  write_bytes(in_folder(dir, "empty"), "", 0);
  expect_status(map_only, (void *)in_folder(dir, "empty"), TN_OK, NULL);
  expect_status(map_only, (void *)in_folder(dir, "none"), TN_ERESOURCE, "none: cannot be opened");
  expect_status(map_only, dir, TN_EINPUT, "is a folder");
  cr_assert_eq(mkfifo(in_folder(dir, "pipe"), 0600), 0);
  expect_status(map_only, (void *)in_folder(dir, "pipe"), TN_EINPUT, "device or pipe");
  drop_folder(dir);
}

Test(file, stays_inside) {
  char *dir = make_folder();
  cr_assert_eq(mkdir(in_folder(dir, "model"), 0700), 0);
  cr_assert_eq(mkdir(in_folder(dir, "model/sub"), 0700), 0);
  cr_assert_eq(mkdir(in_folder(dir, "modelx"), 0700), 0);
  write_bytes(in_folder(dir, "model/data"), "hello", 5);
  write_bytes(in_folder(dir, "model/sub/data"), "hello", 5);
  write_bytes(in_folder(dir, "model/..data"), "hello", 5);
  write_bytes(in_folder(dir, "modelx/data"), "hello", 5);
  cr_assert_eq(symlink("sub/data", in_folder(dir, "model/good")), 0);
  cr_assert_eq(symlink("../modelx/data", in_folder(dir, "model/bad")), 0);
  cr_assert_eq(symlink("../modelx", in_folder(dir, "model/out")), 0);
  cr_assert_eq(symlink("loop", in_folder(dir, "model/loop")), 0);
  cr_assert_eq(symlink("model", in_folder(dir, "alias")), 0);
  char folder[600], alias[600];
  snprintf(folder, sizeof folder, "%s/model", dir);
  snprintf(alias, sizeof alias, "%s/alias/", dir);
  static const struct {
    const char *location;
    tn_status status;
    const char *message;
  } cases[] = {
      {"data", TN_OK, NULL},
      {"./sub//data", TN_OK, NULL},
      {"..data", TN_OK, NULL},
      {"good", TN_OK, NULL},
      {"", TN_EINPUT, "empty"},
      {"/etc/passwd", TN_EINPUT, "absolute"},
      {"../modelx/data", TN_EINPUT, "'..'"},
      {"sub/../data", TN_EINPUT, "'..'"},
      {"sub/..", TN_EINPUT, "'..'"},
      {"bad", TN_EINPUT, "symbolic link"},
      {"out/data", TN_EINPUT, "symbolic link"},
      {"sub", TN_EINPUT, "folder"},
      {".", TN_EINPUT, NULL},
      {"loop", TN_ERESOURCE, "m.onnx: external data 'loop': cannot be opened"},
      {"a\nb", TN_ERESOURCE, "a\\x0ab"},
  };
  for (int i = 0; i < IR_COUNT(cases); i++) {
    expect_status(map_inside, &(inside){folder, cases[i].location}, cases[i].status, cases[i].message);
    expect_status(map_inside, &(inside){alias, cases[i].location}, cases[i].status, cases[i].message);
  }
  cr_assert_eq(chdir(folder), 0);
  expect_status(map_inside, &(inside){"", "data"}, TN_OK, NULL);
  expect_status(map_inside, &(inside){NULL, "bad"}, TN_EINPUT, "symbolic link");
  cr_assert_eq(chdir("/"), 0);
  drop_folder(dir);
}

Test(file, paths) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  cr_assert_str_eq(fe_path_folder(ctx, "a/b/c"), "a/b");
  cr_assert_str_eq(fe_path_folder(ctx, "c"), "");
  cr_assert_str_eq(fe_path_folder(ctx, "/c"), "/");
  cr_assert_str_eq(fe_path_join(ctx, "", "c"), "c");
  cr_assert_str_eq(fe_path_join(ctx, "a", "c"), "a/c");
  cr_assert_str_eq(fe_path_join(ctx, "a/", "c"), "a/c");
  cr_assert_str_eq(fe_show(ctx, BYTES("ok'\x01\xff\\")), "ok\\x27\\x01\\xff\\x5c");
  int64_t n;
  cr_assert(fe_dims_count((int64_t[]){INT64_MAX, INT64_MAX, 0}, 3, &n) && n == 0);
  cr_assert(fe_dims_count(NULL, 0, &n) && n == 1);
  cr_assert_not(fe_dims_count((int64_t[]){1L << 32, 1L << 31}, 2, &n));
  cr_assert_not(fe_dims_count((int64_t[]){0, -1}, 2, &n));
  tn_ctx_free(ctx);
}

static int files_in(const char *dir) {
  DIR *d = opendir(dir);
  int n = 0;
  for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
  closedir(d);
  return n;
}

static void write_hello(tn_ctx *ctx, void *path) { fe_write_file(ctx, path, "hello", 5); }

static void write_and_throw(tn_ctx *ctx, void *path) {
  fe_writer *w = fe_write_begin(ctx, path);
  fe_write(w, "new", 3);
  ir_fail(ctx, TN_EWRONG, "stop");
}

static void write_and_leave(tn_ctx *ctx, void *path) {
  fe_writer *w = fe_write_begin(ctx, path);
  for (int i = 0; i < 100000; i++) fe_write(w, "new", 3);
}

static void write_and_give_up(tn_ctx *ctx, void *path) {
  fe_writer *w = fe_write_begin(ctx, path);
  fe_write_abort(w);
  fe_write_abort(w);
}

static void write_much(tn_ctx *ctx, void *path) {
  fe_writer *w = fe_write_begin(ctx, path);
  char *big = ir_alloc(ctx, 100000);
  fe_write(w, "x", 1);
  fe_write(w, big, 100000);
  fe_write(w, big, 0);
  fe_write(w, "y", 1);
  fe_write_end(w);
  const fe_map *m = fe_map_file(ctx, path);
  cr_assert_eq(m->size, 100002);
  cr_assert_eq(((const char *)m->data)[100001], 'y');
}

static void write_ahead(tn_ctx *ctx, void *path) {
  fe_writer *w = fe_write_begin_product(ctx, path), *nowhere = fe_write_begin_product(ctx, "/dev/null");
  cr_assert(fe_write_ahead(w, 8, 16));
  cr_assert_not(fe_write_ahead(nowhere, 8, 16), "a device takes bytes in turn");
  fe_write_at(w, 16, "ahead", 5);
  fe_write(w, "12345678", 8);
  fe_write(w, "not this", 0);
  fe_write(w, "is passed over..", 16);
  fe_write(w, "z", 1);
  fe_write_end(w);
  const fe_map *m = fe_map_file(ctx, path);
  cr_assert_eq(m->size, 25);
  cr_assert_eq(memcmp(m->data, "12345678\0\0\0\0\0\0\0\0ahead\0\0\0z", 25), 0);
}

Test(file, ahead) {
  char *dir = make_folder();
  expect_status(write_ahead, (void *)in_folder(dir, "target"), TN_OK, NULL);
  drop_folder(dir);
}

Test(file, atomic) {
  char *dir = make_folder();
  const char *path = in_folder(dir, "target");
  expect_status(write_hello, (void *)path, TN_OK, NULL);
  cr_assert_eq(chmod(path, 0640), 0);
  expect_status(write_and_throw, (void *)path, TN_EWRONG, "stop");
  expect_status(write_and_leave, (void *)path, TN_OK, NULL);
  expect_status(write_and_give_up, (void *)path, TN_OK, NULL);
  cr_assert_eq(files_in(dir), 1);
  blob b = slurp(path);
  cr_assert(b.n == 5 && memcmp(b.data, "hello", 5) == 0);
  free((void *)b.data);
  starve(write_hello, (void *)path);
  expect_status(write_much, (void *)path, TN_OK, NULL);
  struct stat st;
  cr_assert_eq(stat(path, &st), 0);
  cr_assert_eq(st.st_mode & 0777, 0640);
  cr_assert_eq(files_in(dir), 1);
  expect_status(write_hello, (void *)in_folder(dir, "no/such"), TN_ERESOURCE, "cannot be written");
  expect_status(write_hello, dir, TN_ERESOURCE, "Is a directory");
  expect_status(write_hello, "/dev/null", TN_OK, NULL);
  expect_status(write_hello, "/dev/full", TN_ERESOURCE, "No space");
  drop_folder(dir);
}

/* ---- the wire format ---- */

static void walk(tn_ctx *ctx, void *arg) {
  blob *b = arg;
  fe_wire w = fe_wire_open(ctx, "w.pb", b->data, b->n, "thing");
  fe_field f;
  while (fe_wire_next(&w, &f)) {}
}

Test(wire, malformed) {
  static const struct {
    const char *bytes;
    size_t n;
    const char *message; /* null: well-formed */
  } cases[] = {
      {BYTES(""), NULL},
      {BYTES("\x08\x00"), NULL},
      {BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), NULL},
      {BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), "64 bits"},
      {BYTES("\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), "64 bits"},
      {BYTES("\x08\x80"), "inside a number"},
      {BYTES("\x08"), "inside a number"},
      {BYTES("\x80"), "inside a number (byte 0)"},
      {BYTES("\x00\x00"), "field number"},
      {BYTES("\xf8\xff\xff\xff\x7f\x00"), "field number"},
      {BYTES("\x0e"), "unknown wire type"},
      {BYTES("\x0f"), "unknown wire type"},
      {BYTES("\x08\x01\x12\x03xyz"), NULL},
      {BYTES("\x08\x01\x12\x04xyz"), "longer than the message that holds it (byte 2)"},
      {BYTES("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "longer than"},
      {BYTES("\x0d\x01\x02\x03\x04"), NULL},
      {BYTES("\x0d\x01\x02\x03"), "32-bit"},
      {BYTES("\x09\x01\x02\x03\x04\x05\x06\x07"), "64-bit"},
      {BYTES("\x0b\x08\x01\x0c\x10\x01"), NULL},             /* a group */
      {BYTES("\x0b\x13\x0b\x0c\x14\x0c"), NULL},             /* groups in groups */
      {BYTES("\x0b\x08\x01"), "inside a group"},
      {BYTES("\x0b\x14"), "another field's number"},
      {BYTES("\x0c"), "never began"},
      {BYTES("\x0b\x12\x7f\x0c"), "longer than"},
  };
  for (int i = 0; i < IR_COUNT(cases); i++)
    expect_status(walk, &(blob){cases[i].bytes, cases[i].n}, cases[i].message ? TN_EINPUT : TN_OK, cases[i].message);
  char groups[400];
  memset(groups, 0x0b, 200);
  memset(groups + 200, 0x0c, 200);
  expect_status(walk, &(blob){groups, 400}, TN_EINPUT, "too deep");
  expect_status(walk, &(blob){groups + 110, 180}, TN_OK, NULL);
}

static void values(tn_ctx *ctx, void *arg) {
  static const char bytes[] = "\x08\x96\x01"                         /* 1: 150 */
                              "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" /* 2: -1 */
                              "\x1d\x00\x00\xc0\x3f"                 /* 3: 1.5f */
                              "\x22\x03one"                          /* 4 */
                              "\x2a\x04\x01\x96\x01\x02"             /* 5: packed 1, 150, 2 */
                              "\x28\x07"                             /* 5: 7 */
                              "\x32\x08\x00\x00\x80\x3f\x00\x00\x00\x40"; /* 6: packed 1, 2 */
  fe_wire w = fe_wire_open(ctx, "w.pb", bytes, sizeof bytes - 1, NULL);
  fe_field f;
  cr_assert(fe_wire_next(&w, &f) && fe_wire_int64(&w, &f) == 150);
  cr_assert(fe_wire_next(&w, &f) && fe_wire_int64(&w, &f) == -1 && fe_wire_int32(&w, &f) == -1);
  cr_assert(fe_wire_next(&w, &f) && fe_wire_float(&w, &f) == 1.5f);
  cr_assert(fe_wire_next(&w, &f) && fe_wire_string(&w, &f) == ir_intern(ctx, "one"));
  int64_t v[3];
  uint8_t u[3];
  cr_assert(fe_wire_next(&w, &f) && fe_wire_count(&w, &f, FE_WIRE_VARINT) == 3);
  cr_assert(fe_wire_get(&w, &f, FE_WIRE_VARINT, 8, v) == 3 && v[0] == 1 && v[1] == 150 && v[2] == 2);
  cr_assert(fe_wire_get(&w, &f, FE_WIRE_VARINT, 1, u) == 3 && u[1] == 150);
  cr_assert(fe_wire_next(&w, &f) && fe_wire_get(&w, &f, FE_WIRE_VARINT, 8, v) == 1 && v[0] == 7);
  float x[2];
  cr_assert(fe_wire_next(&w, &f) && fe_wire_get(&w, &f, FE_WIRE_I32, 4, x) == 2 && x[0] == 1 && x[1] == 2);
  cr_assert_not(fe_wire_next(&w, &f));
}

Test(wire, values) { expect_status(values, NULL, TN_OK, NULL); }
