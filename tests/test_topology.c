/* The reader of SCALE-Sim topologies: both forms, what is found in the wild, what is refused. */
#include "frontend/topology.h"
#include "tests/reader_help.h"

#define CONV "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"

typedef struct want {
  const char *name;
  int64_t M, N, K, groups, copies;
} want;

static void check(tn_ctx *ctx, const char *text, bool gemm, int n, const want *w) {
  fe_topology *t = fe_topology_parse(ctx, text, strlen(text), "t.csv");
  cr_assert_eq(t->gemm, gemm);
  cr_assert_eq(t->n, n, "%d layers, not %d", t->n, n);
  for (int i = 0; i < n; i++) {
    const fe_topology_layer *l = &t->layers[i];
    cr_assert_str_eq(l->name, w[i].name);
    cr_assert(l->M == w[i].M && l->N == w[i].N && l->K == w[i].K, "%s: %ldx%ldx%ld", l->name, (long)l->M, (long)l->N, (long)l->K);
    cr_assert(l->groups == w[i].groups && l->copies == w[i].copies);
  }
}

static void forms(tn_ctx *ctx, void *arg) {
  check(ctx, CONV "Conv1, 224, 224, 7, 7, 3, 64, 2,\nFC, 1, 1, 1, 1, 512, 1000, 1,\n", false, 2,
        (want[]){{"Conv1", 110 * 110, 64, 147, 1, 0}, {"FC", 1, 1000, 512, 1, 0}}); /* 110, for a last window that is not whole counts */
  check(ctx, "Layer,M,N,K,\nGEMM_1, 128, 1024, 512,\n b ,1,5,16", true, 2, (want[]){{"GEMM_1", 128, 1024, 512, 1, 0}, {"b", 1, 5, 16, 1, 0}});
  check(ctx, "L,K,M,N\nx,3,1,2\n", true, 1, (want[]){{"x", 1, 2, 3, 1, 0}});
  check(ctx, "no heading, 5, 5, 3, 3, 2, 6, 1", false, 1, (want[]){{"no heading", 9, 6, 18, 1, 0}});
  check(ctx, "\xef\xbb\xbf# from a spreadsheet\r\n" CONV "\r\n,,,,,,,,\r\nAlexnet,\r\n\"a, b\", 30, 20, 3, 5, 4, 8, 2,#dw\r\n", false, 1,
        (want[]){{"a, b", 15 * 9, 8, 60, 1, 0}});
  check(ctx, "Layer\tH\tW\tR\tS\tC\tK\tStrides\t\nx\t572\t572\t3\t3\t1\t64\t1\t\n", false, 1, (want[]){{"x", 570 * 570, 64, 9, 1, 0}});
}

static void columns(tn_ctx *ctx, void *arg) {
  check(ctx, "Layer, H, W, R, S, C, K, Strides, Stride Width, Batch Size, Groups, Sparsity, Eh\nx, 9, 9, 3, 3, 8, 16, 2, 3, 4, 2, 2:4, 77\ny, 9, 9, 3, 3, 8, 16, 2\n", false, 2,
        (want[]){{"x", 4 * 4 * 3, 8, 36, 2, 0}, {"y", 16, 16, 72, 1, 0}});
  check(ctx, "Layer, H, W, R, S, C, K, Strides, , , Eh, Ew\nx, 9, 9, 3, 3, 8, 16, 2, , , 1, 2\n", false, 1, (want[]){{"x", 16, 16, 72, 1, 0}});
  check(ctx, "Layer Name, M, N, K, Sparsity,\nx, 3, 5, 16, 3:4,\n", true, 1, (want[]){{"x", 3, 5, 16, 1, 0}});
  fe_topology *t = fe_topology_load(ctx, CORPUS "topology/sparse.csv");
  cr_assert(t->layers[0].sparse_n == 1 && t->layers[0].sparse_m == 4 && t->layers[0].line == 2);
}

/* As SCALE-Sim has it: a row per channel, of all the filters. */
static void depthwise(tn_ctx *ctx, void *arg) {
  const char *text = CONV "DP1, 8, 8, 3, 3, 5, 1, 1,\n";
  check(ctx, text, false, 1, (want[]){{"DP1", 36, 1, 9, 1, 5}});
  fe_topology *t = fe_topology_parse(ctx, text, strlen(text), "t.csv");
  cr_assert_str_eq(fe_topology_name(ctx, t->layers, 4), "DP1Channel_4");
}

Test(topology, forms) { expect_status(forms, NULL, TN_OK, NULL); }
Test(topology, columns) { expect_status(columns, NULL, TN_OK, NULL); }
Test(topology, depthwise) { expect_status(depthwise, NULL, TN_OK, NULL); }

static void parse(tn_ctx *ctx, void *arg) {
  blob *b = arg;
  fe_topology_parse(ctx, b->data, b->n, "t.csv");
}

Test(topology, refusals) {
  static const struct {
    const char *text, *part;
  } cases[] = {
      {"", "no layers"},
      {CONV, "no layers"},
      {CONV "x, 8, 8, 3, 3, 5, 1,\n", "t.csv:2: column 'stride' is missing"},
      {CONV "\nx, 8, 8, 3, , 5, 1, 1\n", "t.csv:3: column 'filter width' is missing"},
      {CONV "x, 8, B, 3, 3, 5, 1, 1\n", "column 'IFMAP width': 'B' is not a whole number"},
      {CONV "x, 8, 8.5, 3, 3, 5, 1, 1\n", "is not a whole number"},
      {CONV "x, 8, 8, 3, 3, -5, 1, 1\n", "column 'channels': '-5' is negative"},
      {CONV "x, 8, 8, 3, 3, 5, 1, 0\n", "column 'stride': '0' must be 1 or more"},
      {CONV "x, 8, 8, 9, 3, 5, 1, 1\n", "filter is higher"},
      {CONV "x, 8, 8, 3, 9, 5, 1, 1\n", "filter is wider"},
      {CONV "x, 99999999999999999999999, 8, 3, 9, 5, 1, 1\n", "is more than 2147483647"},
      {CONV "x, 2147483647, 2147483647, 1, 1, 1, 1, 1\n", "too large"},
      {CONV "x, 40000, 40000, 3, 3, 5, 1000000, 1\nx, 2000000000, 1, 1, 1, 1000000000, 1000000000, 1", "t.csv:3: too large"},
      {CONV "DP, 8, 8, 3, 3, 100000, 1, 1\n", "depthwise"},
      {"Layer, H, W, R, S, C, K, U, Groups\nx, 8, 8, 3, 3, 6, 8, 1, 4\n", "no multiples of the groups"},
      {"Layer, H, W, R, S, C, K, U, Sparsity\nx, 8, 8, 3, 3, 6, 8, 1, 5:4\n", "more than all"},
      {"Layer, H, W, R, S, C, K, U, Sparsity\nx, 8, 8, 3, 3, 6, 8, 1, 1\n", "is not N:M"},
      {"Layer, H, W\nx, 8, 8\n", "neither"},
      {"Layer, M, N\nx, 8, 8\n", "neither"},
      {"Layer, M, N, K, M\nx, 8, 8, 8, 8\n", "two columns"},
      {CONV "\"x, 8, 8, 3, 3, 5, 1, 1\n", "quote"},
  };
  for (int i = 0; i < IR_COUNT(cases); i++) expect_status(parse, &(blob){cases[i].text, strlen(cases[i].text)}, TN_EINPUT, cases[i].part);
  expect_status(parse, &(blob){"Layer\0M", 7}, TN_EINPUT, "zero byte");
}

Test(topology, damaged) {
  static const char *const files[] = {"conv", "gemm", "crlf", "extra", "tabs", "sparse"};
  for (int i = 0; i < IR_COUNT(files); i++) {
    char path[512];
    snprintf(path, sizeof path, "%stopology/%s.csv", CORPUS, files[i]);
    cr_assert(maul(path, parse) > 0, "%s", path);
  }
}

Test(topology, starved) { starve(parse, &(blob){BYTES(CONV "DP1, 8, 8, 3, 3, 5, 1, 1,\n")}); }
