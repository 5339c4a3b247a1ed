/* run_bad_models.c — writes models that are wrong, one way each, and says what must be said of them.
 *
 *   run_bad_models DIR      writes DIR/NAME.onnx and prints a line each: NAME STATUS PART PART
 *                           (tabs between; the parts must be in the message)
 *
 * For tests/test_bad_models.sh. */
#include "tests/onnx_bytes.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { F32 = 1, I32 = 6, I64 = 7, STRING = 8, OK = 0, USAGE = 2, UNSUPPORTED = 3, INPUT = 4, RESOURCE = 5 };

static const char *folder;

static void write_file(const char *name, const void *bytes, size_t n) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) perror(path), exit(1);
}

static void say(const char *name, int status, const char *part, const char *other) { printf("%s\t%d\t%s\t%s\n", name, status, part, other); }

/* `where`: the node or value that the message must name; `why`: a part of the reason. */
static void put(const char *name, const on_model *m, int status, const char *where, const char *why) {
  char file[256];
  static pb p;
  p = on_finish(m);
  snprintf(file, sizeof file, "%s.onnx", name);
  write_file(file, p.b, p.n);
  say(name, status, where, why);
}

/* x: f32[2,3] -> op -> y */
static on_model one(const char *op, const char *in) {
  on_model m = {0};
  on_input(&m, "x", F32, "2,3");
  on_add(&m, on_node(op, in, "y"));
  on_output(&m, "y", F32, "2,3");
  return m;
}

static on_model with(on_model m, pb node) {
  on_add(&m, node);
  return m;
}

/* The shape operand of an op as a constant: x -> op(x, s) -> y. */
static on_model shaped(const char *op, int n, const int64_t *s) {
  on_model m = one(op, "x,s");
  on_init(&m, on_ints("s", n, s));
  return m;
}

static pb external(const char *location, int64_t offset, int64_t length) {
  pb t = {0};
  char text[32];
  pb_int(&t, 1, 6), pb_int(&t, 2, F32), pb_str(&t, 8, "w"), pb_int(&t, 14, 1);
  const char *keys[] = {"location", "offset", "length"};
  for (int i = 0; i < 3; i++) {
    pb e = {0};
    pb_str(&e, 1, keys[i]);
    snprintf(text, sizeof text, "%lld", (long long)(i == 1 ? offset : length));
    pb_str(&e, 2, i ? text : location);
    pb_sub(&t, 13, &e);
  }
  return t;
}
static on_model outside(const char *location, int64_t offset, int64_t length) {
  on_model m = {0};
  on_input(&m, "x", F32, "6");
  on_init(&m, external(location, offset, length));
  on_add(&m, on_node("Add", "x,w", "y"));
  on_output(&m, "y", F32, "6");
  return m;
}

static void structure(void) {
  on_model m = one("Relu", "x");
  put("good", &m, OK, "", "");
  static pb p;
  p = on_finish(&m);
  write_file("truncated.onnx", p.b, p.n * 2 / 3);
  say("truncated", INPUT, "", "longer than");
  write_file("empty.onnx", "", 0);
  say("empty", INPUT, "", "empty");
  write_file("text.onnx", "this is no model at all\n", 24);
  say("text", INPUT, "", "");
  m = one("Relu", "b");
  on_add(&m, on_node("Relu", "y", "b"));
  put("cycle", &m, INPUT, "'y' (Relu)", "'b' is not defined before it");
  m = one("Relu", "y");
  put("own_input", &m, INPUT, "'y' (Relu)", "'y' is not defined before it");
  m = one("Relu", "nowhere");
  put("undefined", &m, INPUT, "'y' (Relu)", "'nowhere' is not defined");
  m = one("Relu", "x");
  on_output(&m, "z", F32, "2");
  put("no_such_output", &m, INPUT, "'z'", "not computed");
  m = with(one("Relu", "x"), on_node("Abs", "x", "y"));
  put("two_nodes_one_name", &m, INPUT, "'y' (Abs)", "defined twice");
  m = one("Relu", "x");
  on_input(&m, "x", F32, "2");
  put("two_inputs_one_name", &m, INPUT, "'x'", "defined twice");
  m = one("Add", "x,w");
  on_init(&m, on_floats("w", 3, (float[]){1, 2, 3}));
  on_init(&m, on_floats("w", 3, (float[]){1, 2, 3}));
  put("two_tensors_one_name", &m, INPUT, "'w'", "defined twice");
  m = one("Relu", "x");
  m.opset = -3;
  put("opset", &m, INPUT, "'y' (Relu)", "no version -3");
  m = (on_model){0};
  pb body = {0}, self = on_node("f", "v", "w");
  pb_str(&self, 7, "local");
  pb_sub(&body, 7, &self);
  on_function(&m, "f", "v", "w", &body);
  on_input(&m, "x", F32, "2");
  pb call = on_node("f", "x", "y");
  pb_str(&call, 7, "local");
  on_add(&m, call);
  on_output(&m, "y", F32, "2");
  put("recursion", &m, INPUT, "(f)", "calls itself");
}

static void operators(void) {
  on_model m = one("Frobnicate", "x");
  put("unknown_op", &m, UNSUPPORTED, "'y' (Frobnicate)", "opset 18) is not supported");
  pb n = on_node("Relu", "x", "y");
  pb_str(&n, 7, "org.example");
  m = (on_model){0};
  on_input(&m, "x", F32, "2");
  on_add(&m, n);
  on_output(&m, "y", F32, "2");
  put("unknown_domain", &m, UNSUPPORTED, "org.example:Relu", "not supported");
  m = one("Relu", "x,x");
  put("too_many_inputs", &m, INPUT, "'y' (Relu)", "takes 1 to 1 inputs, has 2");
  m = one("Add", "x,");
  put("omitted_input", &m, INPUT, "'y' (Add)", "2 to 2 inputs, has 1");
  m = one("Add", "x,i");
  on_init(&m, on_ints("i", 3, (int64_t[]){1, 2, 3}));
  put("mixed_types", &m, INPUT, "'y' (Add)", "i64");
  m = one("MatMul", "x,x");
  put("shapes_do_not_fit", &m, INPUT, "'y' (MatMul)", "");
  m = one("Add", "x,w");
  on_init(&m, on_floats("w", 4, (float[]){1, 2, 3, 4}));
  put("no_broadcast", &m, INPUT, "'y' (Add)", "broadcast");
  n = on_node("Softmax", "x", "y");
  on_attr_float(&n, "axis", 1.5f);
  m = (on_model){0};
  on_input(&m, "x", F32, "2,3");
  on_add(&m, n);
  on_output(&m, "y", F32, "2,3");
  put("wrong_attribute_kind", &m, INPUT, "'y' (Softmax)", "'axis' is not an integer");
  n = on_node("Softmax", "x", "y");
  on_attr_int(&n, "axis", 7);
  m = (on_model){0};
  on_input(&m, "x", F32, "2,3");
  on_add(&m, n);
  on_output(&m, "y", F32, "2,3");
  put("axis_outside", &m, INPUT, "'y' (Softmax)", "axis 7");
  n = on_node("Relu", "x", "y");
  on_attr_int(&n, "colour", 3);
  m = (on_model){0};
  on_input(&m, "x", F32, "2,3");
  on_add(&m, n);
  on_output(&m, "y", F32, "2,3");
  put("unknown_attribute", &m, UNSUPPORTED, "'y' (Relu)", "'colour'");
  m = (on_model){0};
  on_input(&m, "s", STRING, "2");
  on_add(&m, on_node("Identity", "s", "y"));
  on_output(&m, "y", STRING, "2");
  put("strings", &m, UNSUPPORTED, "'s'", "STRING");
}

static void sizes(void) {
  on_model m = {0};
  on_input(&m, "x", F32, "N,3");
  on_add(&m, on_node("Relu", "x", "y"));
  on_output(&m, "y", F32, "N,3");
  put("missing_dim", &m, USAGE, "N", "--dim");
  m = (on_model){0};
  on_input(&m, "x", F32, "4000000000,4000000000,4000000000");
  on_add(&m, on_node("Relu", "x", "y"));
  on_output(&m, "y", F32, "1");
  put("huge_input", &m, INPUT, "'x'", "overflows");
  int64_t big[] = {(int64_t)1 << 40, (int64_t)1 << 40};
  m = shaped("Expand", 2, big);
  put("huge_expand", &m, INPUT, "'y' (Expand)", "");
  m = shaped("Tile", 2, big);
  put("huge_tile", &m, INPUT, "'y' (Tile)", "");
  m = shaped("Reshape", 2, big);
  put("huge_reshape", &m, INPUT, "'y' (Reshape)", "");
  m = shaped("Reshape", 2, (int64_t[]){-1, -1});
  put("two_unknown", &m, INPUT, "'y' (Reshape)", "-1");
  m = shaped("Reshape", 2, (int64_t[]){4, 2});
  put("other_count", &m, INPUT, "'y' (Reshape)", "");
  m = shaped("Pad", 4, (int64_t[]){INT64_MAX, 0, INT64_MAX, 0});
  put("huge_pad", &m, INPUT, "'y' (Pad)", "");
  m = shaped("Pad", 4, (int64_t[]){-5, 0, 0, 0});
  put("negative_pad", &m, INPUT, "'y' (Pad)", "");
  m = shaped("SplitToSequence", 3, (int64_t[]){INT64_MAX, INT64_MAX, 4}); /* 2 in 64 bits, as long as the axis is */
  put("parts_overflow", &m, INPUT, "'y' (SplitToSequence)", "are not the 2 elements of axis 0");
  m = (on_model){0};
  on_init(&m, on_ints("s", 1, (int64_t[]){(int64_t)1 << 42}));
  on_add(&m, on_node("ConstantOfShape", "s", "y"));
  on_output(&m, "y", F32, "1");
  put("huge_constant", &m, RESOURCE, "", ""); /* 16 TiB: a legal size that no disk has */
  pb conv = on_node("Conv", "x,w", "y");
  on_attr_int(&conv, "group", 3);
  m = (on_model){0};
  on_input(&m, "x", F32, "1,4,5,5");
  pb w = {0};
  for (int i = 0; i < 4; i++) pb_int(&w, 1, i < 2 ? 2 : 1);
  pb_int(&w, 2, F32), pb_str(&w, 8, "w"), pb_bytes(&w, 9, (float[4]){0}, 16);
  on_init(&m, w);
  on_add(&m, conv);
  on_output(&m, "y", F32, "1,2,5,5");
  put("groups", &m, INPUT, "'y' (Conv)", "");
  pb t = {0};
  pb_int(&t, 1, 5), pb_int(&t, 2, F32), pb_str(&t, 8, "w"), pb_bytes(&t, 9, (float[4]){0}, 16);
  m = one("Add", "x,w");
  on_init(&m, t);
  put("short_tensor", &m, INPUT, "'w'", "");
}

static void external_data(void) {
  float w[6] = {1, 2, 3, 4, 5, 6};
  char path[1024], secret[5000], here[4000];
  write_file("w.bin", w, sizeof w);
  on_model m = outside("w.bin", 0, 24);
  put("external", &m, OK, "", "");
  m = outside("gone.bin", 0, 24);
  put("external_missing", &m, RESOURCE, "'w'", "gone.bin");
  m = outside("w.bin", 8, 24);
  put("external_short", &m, INPUT, "'w'", "");
  m = outside("w.bin", INT64_MAX, 24);
  put("external_offset", &m, INPUT, "'w'", "");
  m = outside("../w.bin", 0, 24);
  put("external_parent", &m, INPUT, "'w'", "..");
  m = outside("/etc/hostname", 0, 24);
  put("external_absolute", &m, INPUT, "'w'", "");
  snprintf(path, sizeof path, "%s/link.bin", folder);
  if (!realpath(folder, here)) perror(folder), exit(1);
  snprintf(secret, sizeof secret, "%s/../secret.bin", here);
  write_file("../secret.bin", w, sizeof w);
  unlink(path);
  if (symlink(secret, path) == 0) {
    m = outside("link.bin", 0, 24);
    put("external_link", &m, INPUT, "'w'", "");
  }
}

int main(int argc, char **argv) {
  if (argc != 2) return fputs("usage: run_bad_models DIR\n", stderr), 2;
  folder = argv[1];
  structure();
  operators();
  sizes();
  external_data();
  return 0;
}
