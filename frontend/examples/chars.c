/* chars.c — a small transformer learns a text, character by character, and writes some of its own.
 *
 *   chars TEXT [STEPS]      TEXT: any file; 300 steps
 *
 * Layers in module style: a struct with its sizes and a forward function. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tenon.h>

enum { CHARS = 128, CONTEXT = 64, WIDTH = 64, HEADS = 4, BLOCKS = 2, BATCH = 8 };

/* ---- modules ---- */

typedef struct block {
  char norm1[24], attention[24], out[24], norm2[24], up[24], down[24]; /* names of its layers */
} block;

static tn_tensor *block_forward(const block *b, tn_graph *g, tn_tensor *x, tn_tensor *mask) {
  tn_tensor *h = tn_layer_norm(g, x, 1e-5, b->norm1);
  x = tn_add(g, x, tn_dense(g, tn_attention(g, h, h, h, HEADS, mask, b->attention), WIDTH, b->out));
  h = tn_gelu(g, tn_dense(g, tn_layer_norm(g, x, 1e-5, b->norm2), 4 * WIDTH, b->up));
  return tn_add(g, x, tn_dense(g, h, WIDTH, b->down));
}

typedef struct writer {
  float mask[CONTEXT * CONTEXT]; /* no character sees those after it */
  int64_t places[CONTEXT];
  block blocks[BLOCKS];
} writer;

static void writer_init(writer *w) {
  for (int i = 0; i < CONTEXT * CONTEXT; i++) w->mask[i] = i % CONTEXT > i / CONTEXT ? -1e9f : 0;
  for (int i = 0; i < CONTEXT; i++) w->places[i] = i;
  for (int i = 0; i < BLOCKS; i++) {
    block *b = &w->blocks[i];
    sprintf(b->norm1, "block%d.norm1", i), sprintf(b->attention, "block%d.attention", i), sprintf(b->out, "block%d.out", i);
    sprintf(b->norm2, "block%d.norm2", i), sprintf(b->up, "block%d.up", i), sprintf(b->down, "block%d.down", i);
  }
}

/* ids [N, CONTEXT] -> scores of the character after each, [N * CONTEXT, CHARS]. */
static tn_tensor *writer_forward(const writer *w, tn_graph *g, tn_tensor *ids) {
  tn_tensor *mask = tn_const(g, NULL, TN_F32, 2, (int64_t[]){CONTEXT, CONTEXT}, w->mask), *places = tn_const(g, NULL, TN_I64, 1, (int64_t[]){CONTEXT}, w->places);
  tn_tensor *x = tn_add(g, tn_embedding(g, ids, CHARS, WIDTH, "chars"), tn_embedding(g, places, CONTEXT, WIDTH, "places"));
  for (int i = 0; i < BLOCKS; i++) x = block_forward(&w->blocks[i], g, x, mask);
  return tn_reshape(g, tn_dense(g, tn_layer_norm(g, x, 1e-5, "norm"), CHARS, "head"), 2, (int64_t[]){-1, CHARS});
}

/* ---- functions that are recorded once ---- */

static void step(tn_graph *g, void *w, tn_tensor *const in[], tn_tensor *out[]) {
  out[0] = tn_cross_entropy(g, writer_forward(w, g, in[0]), in[1]);
  tn_minimize(g, out[0], &(tn_optimizer){.kind = TN_ADAMW, .rate = 3e-3, .decay = 0.01, .clip = 1}, 0, NULL);
}

static void scores(tn_graph *g, void *w, tn_tensor *const in[], tn_tensor *out[]) { out[0] = writer_forward(w, g, in[0]); }

static tn_ctx *ctx;
static void die(void) { exit((fprintf(stderr, "%s\n", tn_error(ctx)), 1)); }

static uint64_t seed = 1;
static double draw(void) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (double)(seed >> 11) * 0x1p-53;
}

/* A character by its probability. */
static int pick(const float *score) {
  double sum = 0, at;
  for (int c = 0; c < CHARS; c++) sum += exp(score[c] / 0.7);
  at = draw() * sum;
  for (int c = 0; c < CHARS; c++)
    if ((at -= exp(score[c] / 0.7)) < 0) return c;
  return ' ';
}

int main(int argc, char **argv) {
  static char text[1 << 20];
  FILE *f = argc > 1 ? fopen(argv[1], "rb") : NULL;
  int length = f ? (int)fread(text, 1, sizeof text, f) : 0, steps = argc > 2 ? atoi(argv[2]) : 300;
  if (length < 2 * CONTEXT) return fprintf(stderr, "chars TEXT [STEPS]: a text of at least %d characters\n", 2 * CONTEXT), 2;
  fclose(f);
  static writer w;
  writer_init(&w);
  ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_eager(ctx, "chars", NULL);
  tn_function *train = tn_function_new(g, step, &w, 2, 1), *run = tn_function_new(g, scores, &w, 1, 1);
  tn_function_compiled(train, 1), tn_function_compiled(run, 1);
  for (int i = 0; i < steps; i++) {
    int64_t ids[BATCH][CONTEXT], next[BATCH * CONTEXT];
    for (int b = 0; b < BATCH; b++) {
      const char *at = text + (int)(draw() * (length - CONTEXT - 1));
      for (int k = 0; k < CONTEXT; k++) ids[b][k] = at[k] & 127, next[b * CONTEXT + k] = at[k + 1] & 127;
    }
    tn_tensor *in[2] = {tn_array(g, TN_I64, 2, (int64_t[]){BATCH, CONTEXT}, ids), tn_array(g, TN_I64, 1, (int64_t[]){BATCH * CONTEXT}, next)}, *loss;
    if (tn_call(train, in, &loss)) die();
    if (i % 50 == 0 || i == steps - 1) printf("step %d: loss %.3f\n", i, *(const float *)tn_value(g, loss));
    tn_release(g, in[0]), tn_release(g, in[1]), tn_release(g, loss);
  }
  int64_t window[CONTEXT];
  for (int k = 0; k < CONTEXT; k++) window[k] = text[k] & 127;
  for (int i = 0; i < 200; i++) {
    tn_tensor *in = tn_array(g, TN_I64, 2, (int64_t[]){1, CONTEXT}, window), *out;
    if (tn_call(run, &in, &out)) die();
    int c = pick((const float *)tn_value(g, out) + (CONTEXT - 1) * CHARS);
    putchar(c);
    memmove(window, window + 1, sizeof window - sizeof *window);
    window[CONTEXT - 1] = c;
    tn_release(g, in), tn_release(g, out);
  }
  printf("\n");
  tn_ctx_free(ctx);
  return 0;
}
