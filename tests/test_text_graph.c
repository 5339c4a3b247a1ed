/* Text of programs and graphs: parse(print(x)) is x, data stays outside, errors say where. */
#include "ir/text.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

typedef void body_fn(tn_ctx *ctx, void *arg);

static void run(body_fn *fn, void *arg) {
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_status s = ir_protect(ctx, fn, arg);
  cr_assert_eq(s, TN_OK, "%s", tn_error(ctx));
  tn_ctx_free(ctx);
}

/* ---- programs ---- */

static const char program_text[] =
    "program demo {\n"
    "  bytes weights 1024 arena 512 state 64 pack_arena 128 live_peak 400\n"
    "  counts inputs 1 outputs 1 raw 1\n"
    "  slot x: f32[8] input 0 bytes 32\n"
    "  slot w: f32[8] raw 0 bytes 32 file \"weights.bin\"\n"
    "  slot w: f32[8] layout \"split 0 4; perm 1 0\" weights @64 bytes 32\n"
    "  slot t: f32[8] arena @0 bytes 32\n"
    "  slot t: f32[4] arena @16 bytes 16\n"
    "  slot s: bool[] state @0 bytes 1\n"
    "  slot \"y/1\": f32[8] output 0 bytes 32\n"
    "  slot x2: f32[4] input 0 @16 bytes 16\n"
    "\n"
    "  kernel add(dim n [1, 8],\n"
    "      in A: f32[8],\n"
    "      in B: f32[8],\n"
    "      out C: f32[8]) {\n"
    "    for i in 0 .. n {\n"
    "      C[i] = A[i] + B[i]\n"
    "    }\n"
    "  }\n"
    "  schedule {\n"
    "    split i 4 -> io ii\n"
    "    vectorize ii # four lanes\n"
    "  }\n"
    "\n"
    "  kernel add(in A: f32[8], out B: f32[8]) {\n"
    "    B[0] = A[0]\n"
    "  }\n"
    "  schedule \"x\\n\\n y\"\n"
    "\n"
    "  kernel neg(in A: f32[8], out B: f32[8]) {\n"
    "    B[0] = -A[0]\n"
    "  }\n"
    "  lowered\n"
    "  kernel neg(in A: f32[8], out B: f32[8]) {\n"
    "    for i in 0 .. 1 vector {\n"
    "      B[i] = -A[i]\n"
    "    }\n"
    "  }\n"
    "\n"
    "  pack {\n"
    "    copy raw:w -> weights:w \"w\"\n"
    "  }\n"
    "\n"
    "  run {\n"
    "    let n: index[1, 8] = 8\n"
    "    let m: index[0, 9] = n - 1\n"
    "    call @0(x, weights:w, @3) \"conv+relu\"\n"
    "    if s[] & m > 3 {\n"
    "      call @1(x, @3)\n"
    "      let n = m + 1\n"
    "      while s[] {\n"
    "        copy @4 -> x2\n"
    "      }\n"
    "    } else {\n"
    "      call neg(@3, \"y/1\") on \"cuda:0\"\n"
    "    }\n"
    "  }\n"
    "}\n";

typedef struct found {
  const char *name;
  int64_t bytes;
  uint64_t hash;
  int calls;
  const void *give;
} found;

static const void *find(void *user, const char *name, int64_t bytes, uint64_t hash) {
  found *f = user;
  f->name = name, f->bytes = bytes, f->hash = hash, f->calls++;
  return f->give;
}

static void program_law(tn_ctx *ctx, void *arg) {
  ir_program *p = ir_program_parse(ctx, program_text, "p");
  cr_expect_str_eq(ir_program_print(ctx, p), program_text);
  cr_assert_str_eq(ir_program_print(ctx, ir_program_parse(ctx, ir_program_print(ctx, p), "again")), program_text);
  cr_assert_eq(p->nslots, 8);
  cr_assert_eq(p->slots[7].offset, 16);
  cr_assert_str_eq(p->kernels[0].schedule, "split i 4 -> io ii\nvectorize ii # four lanes\n");
  cr_assert_str_eq(p->kernels[1].schedule, "x\n\n y");
  cr_assert_null(p->kernels[0].lowered);
  cr_assert(p->kernels[2].lowered && p->kernels[2].lowered != p->kernels[2].kernel);
  cr_assert(p->npack == 1 && p->pack[0].args[1] == 1 && p->pack[0].args[0] == 2);
  cr_assert(p->run[3].kind == IR_INST_IF && p->run[3].nbody == 3 && p->run[3].nother == 1);
  char data[32];
  found f = {.give = data};
  p = ir_program_parse_with(ctx, program_text, "p", &(ir_data_source){&f, find});
  cr_assert(f.calls == 1 && f.bytes == 32 && p->slots[1].data == data);
  cr_assert_str_eq(f.name, "w");
}
Test(text_program, law) { run(program_law, NULL); }

static void parse_program(tn_ctx *ctx, void *arg) { ir_program_parse(ctx, arg, "p.tn"); }
static void parse_graph(tn_ctx *ctx, void *arg) { ir_graph_parse(ctx, arg, "g.tn"); }

static void refused(body_fn *parse, const char *file, const char *const (*cases)[2], int n) {
  for (int i = 0; i < n; i++) {
    tn_ctx *ctx = tn_ctx_new(NULL);
    tn_status s = ir_protect(ctx, parse, (void *)cases[i][0]);
    cr_expect(s == TN_EINPUT || s == TN_EUNSUPPORTED, "%s: status %d", cases[i][0], s);
    cr_expect(strstr(tn_error(ctx), cases[i][1]), "%s\n gives \"%s\"\n not  \"%s\"", cases[i][0], tn_error(ctx), cases[i][1]);
    cr_expect(strncmp(tn_error(ctx), file, strlen(file)) == 0, "no place: %s", tn_error(ctx));
    tn_ctx_free(ctx);
  }
}

Test(text_program, refused) {
#define P(body) "program p { slot x: f32[8] input 0 bytes 32 slot y: f32[8] output 0 bytes 32 slot y: f32[8] arena @0 bytes 32 " \
                "kernel k(in A: f32[8], out B: f32[8]) {}\n" body "}"
  static const char *const cases[][2] = {
      {"", "p.tn:1:1: expected 'program'"},
      {"program p { slot s: f32[2] input 0 bytes 8 dim n [1, 2] }", "dimensions come before slots"},
      {"program p { dim n [1, 4] slot s: f32[n - 2] input 0 bytes 8 }", "an extent must be a number, or depend on dimensions of the program"},
      {"program p { dim n [1, 4] slot s: f32[n] input 0 step -4 bytes 8 }", "a number of at least 0"},
      {"program p { dim n [1, 4] run { for i n { } } }", "expected '<'"},
      {"program p { wat }", "expected bytes, counts, dim, slot, kernel, pack, run, init or '}'"},
      {P("run { call f(x) }"), "p.tn:2:12: there is no kernel 'f'"},
      {P("run { call k(x) }"), "kernel 'k' takes 2 buffers, 1 are given"},
      {P("run { call k(x, y) }"), "p.tn:2:17: several slots are named 'y'"},
      {P("run { call k(x, z) }"), "there is no slot 'z'"},
      {P("run { call k(x, raw:x) }"), "there is no slot 'x'"},
      {P("run { call k(x, @3) }"), "there are 3 slots, counted from 0"},
      {P("run { if 1 {} }"), "expected a bool"},
      {P("run { while n < 1 {} }"), "there is no variable 'n'"},
      {P("run {} run {}"), "expected bytes"},
      {P("run {} slot z: f32[] arena @0 bytes 4"), "slots come before"},
      {P("schedule x"), "expected the schedule in braces"},
      {"program p { kernel a() {} schedule { split }", "expected a '}' on a line of its own"},
      {"program p { slot x: f32[n] input 0 bytes 4 }", "there is no variable 'n'"},
      {"program p { slot x: f32[4] input 0 bytes -4 }", "at least 0"},
      {"program p { slot x: f32[4] cache @0 bytes 4 }", "expected input, output, raw, weights, arena or state"},
      {"program p { slot x: f32[4] arena 0 bytes 4 }", "expected '@'"}};
  refused(parse_program, "p.tn:", cases, IR_COUNT(cases));
}

/* What the verifier says of a program, and of one thing changed in its text. */
static void verified(tn_ctx *ctx, void *arg) {
  static const char text[] =
      "program p { bytes weights 64 arena 64 state 0 pack_arena 0 live_peak 32\n"
      "slot x: f32[8] input 0 bytes 32 slot r: f32[8] raw 0 bytes 32 slot w: f32[8] weights @0 bytes 32\n"
      "slot t: f32[8] arena @32 bytes 32 slot y: f32[8] output 0 bytes 32 slot v: f32[4] input 0 @16 bytes 16\n"
      "kernel add(dim n [1, 8], in A: f32[8], in B: f32[8], out C: f32[8]) { for i in 0 .. n { C[i] = A[i] + B[i] } }\n"
      "pack { copy r -> w } run { let n: index[1, 8] = 8 call add(x, w, t) call add(t, t, y) if x[0] < 1 { copy t -> y } } }";
  static const char *const changes[][3] = {
      {"f32[8] raw 0 bytes 32", "f32[8] raw 0 bytes 28", "says 28 bytes, its type has 32"},
      {"weights @0", "weights @64", "ends at byte 96 of 64"},
      {"weights @0", "weights @2", "not aligned"},
      {"arena @32", "arena @64", "ends at byte 96 of an arena of 64"},
      {"f32[4] input 0 @16", "f32[4] input 0 @32", "no part of its tensor"},
      {"add(t, t, y)", "add(t, t, x)", "slot 'x' cannot be stored in run"},
      {"add(t, t, y)", "add(r, t, y)", "slot 'r' cannot be used in run"},
      {"add(t, t, y)", "add(v, t, y)", "slot 'v' has 16 bytes, parameter 'A' of 'add' needs 32"},
      {"copy r -> w", "copy x -> w", "slot 'x' cannot be used in pack"},
      {"copy t -> y", "copy v -> y", "'v' has 16 bytes, 'y' 32"},
      {"let n:", "let m:", "dimension 'n' of kernel 'add' has no value"},
      {"f32[8] output 0", "i32[8] output 0", "slot 'y' has dtype i32"},
      {"C[i] = A[i] + B[i]", "A[i] = C[i] + B[i]", "kernel 'add'"},
      {"f32[8] raw 0 bytes 32", "f32[4000000000, 4000000000] raw 0 bytes 32", "overflows"}};
  const char *wrong = ir_program_verify(ctx, ir_program_parse(ctx, text, "p"));
  cr_assert_null(wrong, "%s", wrong);
  for (int i = 0; i < IR_COUNT(changes); i++) {
    const char *at = strstr(text, changes[i][0]);
    cr_assert(at);
    const char *other = ir_format(ctx, "%.*s%s%s", (int)(at - text), text, changes[i][1], at + strlen(changes[i][0]));
    wrong = ir_program_verify(ctx, ir_program_parse(ctx, other, "p"));
    cr_expect(wrong && strstr(wrong, changes[i][2]), "%s: %s", changes[i][1], wrong ? wrong : "accepted");
  }
}
Test(text_program, verified) { run(verified, NULL); }

/* ---- graphs ---- */

static const char graph_text[] =
    "graph \"my model\" {\n"
    "  file \"model.onnx\"\n"
    "  opset 13\n"
    "  dim batch [1, 64]\n"
    "  dim \"seq len\"\n"
    "  input x: f32[batch, 8, \"seq len\"]\n"
    "  input cond: bool[]\n"
    "  input u\n"
    "  const w: f32[2, 3] = [1.0, -0.0, nan, inf, 1e-05, 3.4028235e+38]\n"
    "  const scalar packed: i64[] = -7\n"
    "  const none: i32[0] = []\n"
    "  const odd: f32[2] = bits [0x7fc00001, 0x3f800000]\n"
    "  const half: f16[2] = [65504.0, 0.1]\n"
    "  param big: u8[100] layout \"split 0 16\"\n"
    "  param rep: i32[2] raw = [1, 2]\n"
    "  state kv: f64[2] = [0.1, 1.0]\n"
    "  y: f32[batch, 8, \"seq len\"] = Relu(x)\n"
    "  z packed: i64[3] known [1, 2, 3] = Shape(y) {start = 0} as shape group 3 where \"model.onnx: node 'shape' (Shape)\"\n"
    "  \"a/b\", _, \"_\" = Split(y, _, w) {axis = -1, num_outputs = 3} as split opset 18\n"
    "  g: f32 = tenon:Frames(y)\n"
    "  later = Add(early, g)\n"
    "  early = LeakyRelu(x) {alpha = 0.1f32, s = \"a\\\"b\", f = 0.5, e = 1e-300, i = ints [], p = [1, 2], q = [1.0, 0.1f32], "
    "t = [\"x\", \"y\"], m = inf, k = floats [], v = tensor scalar, c = tensor own: f32[1] = [2.0], "
    "then = graph then {\n"
    "      opset 13\n"
    "      const w.1: f32[1] = [1.0]\n"
    "      inner = Add(y, w.1)\n"
    "      \"where\" = Relu(later)\n"
    "      output inner, \"where\", x\n"
    "    }}\n"
    "  output later, early, x\n"
    "}\n";

static void graph_law(tn_ctx *ctx, void *arg) {
  ir_graph *g = ir_graph_parse(ctx, graph_text, "g");
  cr_expect_str_eq(ir_graph_print(ctx, g), graph_text);
  cr_assert_str_eq(ir_graph_print(ctx, ir_graph_parse(ctx, ir_graph_print(ctx, g), "again")), graph_text);
  cr_assert(g->ninputs == 3 && g->noutputs == 3 && g->nparams == 8 && g->nnodes == 6);
  cr_assert_eq(g->nodes[4]->in[0], g->nodes[5]->out[0]);
  cr_assert(g->params[6]->raw && !g->params[6]->data && !g->params[5]->raw);
  cr_assert_eq(g->outputs[2], g->inputs[0]);
  cr_assert_eq(g->inputs[2]->rank, -1);
  const ir_attr *a = ir_attr_find(g->nodes[5], "then");
  cr_assert(a && a->graph->outer == g && a->graph->outputs[2] == g->inputs[0] && a->graph->nodes[1]->in[0] == g->nodes[4]->out[0]);
  cr_assert_eq(ir_attr_get_float(g->nodes[5], "alpha", 0), (double)0.1f);
  cr_assert_eq(ir_attr_find(g->nodes[5], "v")->tensor, g->params[1]);
  cr_assert_eq(((const float *)g->params[0]->data)[5], 3.4028235e+38f);
  cr_assert(g->nodes[2]->out[1] == NULL && g->nodes[2]->in[1] == NULL);
  cr_assert_str_eq(g->nodes[2]->out[2]->name, "_");
}
Test(text_graph, law) { run(graph_law, NULL); }

static void graph_built(tn_ctx *ctx, void *arg) {
  float w[1000];
  for (int i = 0; i < 1000; i++) w[i] = (float)i;
  ir_graph *g = ir_graph_new(ctx, "built");
  ix dims[2] = {ir_var_new(ctx, "n", TN_INDEX, 0, INT64_MAX)->expr, ix_index(ctx, 1000)};
  ir_value *x = ir_graph_input(g, "same", TN_F32, 2, dims);
  ir_value *c = ir_graph_const(g, "same", TN_F32, 1, (int64_t[]){1000}, w, false); /* names need not differ */
  ir_node *n = ir_node_new(g, "Add", "same", 2, (ir_value *[]){x, c}, 1);
  ir_infer(ctx, n);
  ir_graph_output(g, n->out[0]);
  const char *text = ir_graph_print(ctx, g);
  found f = {.give = w};
  ir_graph *again = ir_graph_parse_with(ctx, text, "text", &(ir_data_source){&f, find});
  cr_assert_str_eq(ir_graph_print(ctx, again), text);
  cr_assert(f.calls == 1 && f.bytes == 4000 && f.hash == ir_data_hash(w, 4000));
  cr_assert_eq(again->nodes[0]->in[1]->data, w);
  again = ir_graph_parse(ctx, text, "text"); /* without a source: no data */
  cr_assert_null(again->nodes[0]->in[1]->data);
  w[999] = 0;
  cr_assert(ir_data_hash(w, 4000) != f.hash);
  cr_assert(ir_data_hash(w, 0) != ir_data_hash(w, 1));
}
Test(text_graph, built) { run(graph_built, NULL); }

Test(text_graph, refused) {
  static const char *const cases[][2] = {
      {"", "g.tn:1:1: expected 'graph'"},
      {"graph g {\n y = Foo(x)\n}", "g.tn:2:6: there is no operator 'Foo'"},
      {"graph g {\n y = no:Relu(x)\n}", "there is no operator 'Relu' of domain no"},
      {"graph g {\n y = Relu(x)\n}", "g.tn:2:11: there is no value 'x'"},
      {"graph g {\n output x\n}", "g.tn:2:9: there is no value 'x'"},
      {"graph g { input x: f32[2] input x: f32[3] }", "'x' is defined twice"},
      {"graph g { input x: f32[n] }", "there is no variable 'n'"},
      {"graph g { dim n dim n }", "dimension 'n' is defined twice"},
      {"graph g { const c: f32[2] = [1.0] }", "only 1 are given"},
      {"graph g { const c: f32[2] = [1.0, 2.0, 3.0] }", "2 elements only"},
      {"graph g { const c: u8[1] = [256] }", "does not fit u8"},
      {"graph g { const c: u8[1] = bits [0x100] }", "expected the bits of an element"},
      {"graph g { const c: f32[9999999999, 9999999999] }", "below 2^63"},
      {"graph g { const c: f32[2] data 9 hash 0x1 }", "has 8 bytes"},
      {"graph g { const c: index[2] }", "cannot have dtype index"},
      {"graph g { input x: f32[1,1,1,1,1,1,1,1,1,1] }", "at most"},
      {"graph g { input x: f32[1] y = Relu(x) {a = 1, a = 2} }", "'a' is given twice"},
      {"graph g { input x: f32[1] y = Relu(x) {a = [1, 2.0]} }", "of one kind"},
      {"graph g { input x: f32[1] y = Relu(x) {a = []} }", "an empty list needs its kind"},
      {"graph g { input x: f32[1] y = Relu(x) {a = graph h { output zz }} }", "there is no value 'zz'"},
      {"graph g {", "expected a node or '}'"}};
  refused(parse_graph, "g.tn:", cases, IR_COUNT(cases));
}

/* The examples of ir/README.md are texts that parse. */
static void readme(tn_ctx *ctx, void *arg) {
  FILE *f = fopen(TN_SOURCE_DIR "/ir/README.md", "r");
  cr_assert(f);
  char line[300];
  ir_text t = {.ctx = ctx};
  int seen = 0;
  for (bool more = true; more;) {
    more = fgets(line, sizeof line, f) != NULL;
    if (more && strncmp(line, "    ", 4) == 0) {
      ir_put(&t, "%s", line + 4);
      continue;
    }
    if (more && *line == '\n' && t.n) {
      ir_put(&t, "\n");
      continue;
    }
    if (t.n && strncmp(t.s, "kernel", 6) == 0) {
      ir_kernel *k = ir_kernel_parse(ctx, t.s, "README kernel");
      cr_assert_null(ir_kernel_verify(ctx, k));
      seen |= 1;
    } else if (t.n && strncmp(t.s, "program", 7) == 0) {
      ir_program_parse(ctx, t.s, "README program");
      seen |= 2;
    } else if (t.n && strncmp(t.s, "graph", 5) == 0) {
      ir_graph_parse(ctx, t.s, "README graph");
      seen |= 4;
    }
    t = (ir_text){.ctx = ctx};
  }
  fclose(f);
  cr_assert_eq(seen, 7);
}
Test(text_graph, readme) { run(readme, NULL); }
