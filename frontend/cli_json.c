/* cli_json.c — one JSON object, written piece by piece. */
#include "frontend/cli.h"
#include <math.h>
#include <string.h>

void cj_quote(ir_text *t, const char *s) {
  ir_put(t, "\"");
  for (; *s; s++) {
    unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\') ir_put(t, "\\%c", c);
    else if (c == '\n') ir_put(t, "\\n");
    else if (c < 32) ir_put(t, "\\u%04x", c);
    else ir_put_bytes(t, s, 1);
  }
  ir_put(t, "\"");
}

static void key_of(cli_json *j, const char *key) {
  if (j->comma) ir_put(&j->text, ", ");
  j->comma = true;
  if (!key) return;
  cj_quote(&j->text, key);
  ir_put(&j->text, ": ");
}

void cj_begin(cli_json *j, tn_ctx *ctx) {
  memset(j, 0, sizeof *j);
  j->text.ctx = ctx;
  cj_open(j, NULL, '{');
}
void cj_open(cli_json *j, const char *key, char bracket) {
  key_of(j, key);
  ir_put(&j->text, "%c", bracket);
  j->comma = false;
}
void cj_close(cli_json *j, char bracket) {
  ir_put(&j->text, "%c", bracket);
  j->comma = true;
}
void cj_text(cli_json *j, const char *key, const char *v) {
  key_of(j, key);
  if (v) cj_quote(&j->text, v);
  else ir_put(&j->text, "null");
}
void cj_int(cli_json *j, const char *key, int64_t v) {
  key_of(j, key);
  ir_put(&j->text, "%lld", (long long)v);
}
void cj_real(cli_json *j, const char *key, double v) {
  key_of(j, key);
  if (isfinite(v)) ir_put(&j->text, "%.9g", v);
  else ir_put(&j->text, "null");
}
void cj_bool(cli_json *j, const char *key, bool v) {
  key_of(j, key);
  ir_put(&j->text, v ? "true" : "false");
}
void cj_dims(cli_json *j, const char *key, int rank, const int64_t *dims) {
  cj_open(j, key, '[');
  for (int i = 0; i < rank; i++) cj_int(j, NULL, dims[i]);
  cj_close(j, ']');
}
void cj_end(cli_json *j, cli *c) {
  cj_close(j, '}');
  fwrite(j->text.s, 1, j->text.n, c->out);
  fputc('\n', c->out);
  c->answered = true;
}
