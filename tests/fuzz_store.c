/* Fuzzes the import of a tuning store: each line as a row, and what parses must print
 * and parse again as the same row. */
#include "autotune/store_internal.h"
#include "tests/fuzz_limit.h"
#include <math.h>

typedef struct input {
  const uint8_t *data;
  size_t n;
} input;

static bool same(const at_row *a, const at_row *b) {
  if (a->table != b->table || strcmp(a->uid, b->uid) || strcmp(a->sum, b->sum) || a->stamp != b->stamp) return false;
  for (int i = 0; i < a->table->ncols; i++) {
    at_kind k = a->table->cols[i].kind;
    const at_val *x = &a->v[i], *y = &b->v[i];
    if (k == AT_INT ? x->i != y->i : k == AT_REAL ? !(x->d == y->d || (isnan(x->d) && isnan(y->d))) : strcmp(x->s, y->s) != 0)
      return false;
  }
  return true;
}

static bool is_utf8(const char *s) { /* other bytes are replaced when printed */
  for (; *s; s++)
    if ((unsigned char)*s >= 0x80) return false;
  return true;
}

static void one_line(char *line) {
  at_row a, b;
  char *list, *again;
  bool plain = is_utf8(line);
  const char *wrong = at_json_parse_row(line, &a, &list);
  if (!wrong || strstr(wrong, "hash")) {
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    at_json_row(f, &a);
    fclose(f);
    text[n - 1] = 0;
    wrong = at_json_parse_row(text, &b, &again);
    if (wrong && !strstr(wrong, "hash")) abort();
    if (plain && !same(&a, &b)) abort();
    sqlite3_free(again);
    free(text);
  }
  sqlite3_free(list);
}

static void close_file(void *f) { fclose(f); }

static void target(tn_ctx *ctx, void *arg) {
  input *in = arg;
  char *copy = ir_alloc(ctx, in->n + 1);
  memcpy(copy, in->data, in->n);
  for (size_t i = 0; i < in->n; i++)
    if (!copy[i]) copy[i] = 1;
  for (char *line = copy, *end; *line; line = end) {
    end = strchrnul(line, '\n');
    if (*end) *end++ = 0;
    one_line(line);
  }
  if (in->n % 64 != 1) return; /* a database costs a thousand lines */
  at_store *s = at_store_open(ctx, ":memory:", AT_STORE_STRICT | AT_STORE_NOSHARED);
  FILE *f = fmemopen((void *)in->data, in->n, "r");
  if (!f) return;
  ir_defer(ctx, close_file, f); /* import may throw */
  at_store_import(s, f, "fuzz");
  if (at_store_verify(s, false, NULL, NULL).damaged) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  input in = {data, n};
  fuzz_run(n + (256 << 10), target, &in, 1u << TN_OK | 1u << TN_EINPUT);
  return 0;
}
