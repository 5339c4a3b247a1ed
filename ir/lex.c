/* lex.c — words of the texts: reading, writing, places in messages; pointer maps. */
#include "ir/text.h"
#include "ir/interp.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  MAX_DEPTH = 1000,  /* nested blocks, brackets and calls */
  MAX_NUMBER = 400,  /* characters; a double needs at most 25, any decimal of one about 330 */
  MAX_STRING = 1 << 16
};

/* ---- places and messages ---- */

static void place(const ir_lexer *l, const char *at, int *line, int *column) {
  *line = 1;
  const char *start = l->text;
  for (const char *p = l->text; p < at; p++)
    if (*p == '\n') {
      ++*line;
      start = p + 1;
    }
  *column = (int)(at - start) + 1;
}

const char *ir_lex_place(const ir_lexer *l, const char *at) {
  int line, column;
  place(l, at, &line, &column);
  return ir_format(l->ctx, "%s:%d", l->file, line);
}

static void IR_NORETURN fail(const ir_lexer *l, const char *at, tn_status status, const char *message) {
  int line, column;
  place(l, at, &line, &column);
  ir_fail(l->ctx, status, "%s:%d:%d: %s", l->file, line, column, message);
}

void ir_lex_fail_at(const ir_lexer *l, const char *at, const char *fmt, ...) {
  char message[600];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  fail(l, at, TN_EINPUT, message);
}

void ir_lex_fail(const ir_lexer *l, const char *fmt, ...) {
  char message[600];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  fail(l, l->at, TN_EINPUT, message);
}

void ir_lex_expected(const ir_lexer *l, const char *what) {
  int n = (int)(l->p - l->at);
  switch (l->token) {
  case IR_T_END: ir_lex_fail(l, "expected %s, found the end of the text", what);
  case IR_T_LINE: ir_lex_fail(l, "expected %s, found the end of the line", what);
  default: ir_lex_fail(l, "expected %s, found '%.*s'", what, n > 40 ? 40 : n, l->at);
  }
}

void ir_lex_enter(ir_lexer *l) {
  if (++l->depth > MAX_DEPTH) ir_lex_fail(l, "nested more than %d deep", MAX_DEPTH);
}

void ir_lex_leave(ir_lexer *l) { l->depth--; }

typedef struct run {
  ir_lexer *l;
  void (*parse)(ir_lexer *l, void *arg);
  void *arg;
} run;

static void run_parse(tn_ctx *ctx, void *arg) {
  run *r = arg;
  r->parse(r->l, r->arg);
}

void ir_lex_run(ir_lexer *l, void (*parse)(ir_lexer *l, void *arg), void *arg) {
  run r = {l, parse, arg};
  tn_status s = ir_protect(l->ctx, run_parse, &r);
  if (s == TN_OK) return;
  char message[1500];
  snprintf(message, sizeof message, "%s", ir_error(l->ctx));
  ir_where(l->ctx, NULL); /* the message has it already; the next ir_protect puts it back */
  if (s == TN_EINPUT || s == TN_ERESOURCE || s == TN_EINTERNAL) ir_fail(l->ctx, s, "%s", message);
  fail(l, l->at, s, message);
}

/* ---- characters ---- */

static bool name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.' || c == '$'; }
static bool digit(char c) { return c >= '0' && c <= '9'; }
static bool name_char(char c) { return name_start(c) || digit(c); }
static int hex(char c) {
  return digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* First character after a name that starts at p; p itself when there is none. */
static const char *name_end(const char *p) {
  if (!name_start(*p) || (p[0] == '.' && p[1] == '.')) return p;
  while (name_char(*p) && !(p[0] == '.' && p[1] == '.')) p++;
  return p;
}

/* The decimal point of the process's locale, which strtod and printf obey. */
static void radix(char out[8]) {
  char probe[16];
  snprintf(probe, sizeof probe, "%.1f", 0.5);
  size_t n = strlen(probe);
  size_t len = n > 2 && n < 9 ? n - 2 : 1;
  memcpy(out, probe + 1, len);
  out[len] = 0;
}

static double to_double(const char *s, size_t n) {
  char buffer[MAX_NUMBER + 16], point[8];
  radix(point);
  size_t k = 0;
  for (size_t i = 0; i < n; i++) {
    if (s[i] != '.') buffer[k++] = s[i];
    else for (const char *q = point; *q; q++) buffer[k++] = *q;
  }
  buffer[k] = 0;
  return strtod(buffer, NULL);
}

/* ---- tokens ---- */

static void read_number(ir_lexer *l) {
  const char *p = l->at;
  ir_number *v = &l->number;
  *v = (ir_number){0};
  if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X') && hex(p[2]) >= 0) {
    for (p += 2; hex(*p) >= 0; p++) {
      if (v->i >> 60) v->big = true;
      v->i = v->i << 4 | (uint64_t)hex(*p);
    }
    const char *q = p;
    if (*q == '.' && hex(q[1]) >= 0)
      for (q++; hex(*q) >= 0;) q++;
    if (*q == 'p' || *q == 'P') {
      const char *e = q + 1 + (q[1] == '-' || q[1] == '+');
      if (digit(*e)) {
        while (digit(*e)) e++;
        p = e;
        v->real = true;
      }
    }
  } else {
    for (; digit(*p); p++)
      if (__builtin_mul_overflow(v->i, 10u, &v->i) || __builtin_add_overflow(v->i, (uint64_t)(*p - '0'), &v->i)) v->big = true;
    if (*p == '.' && digit(p[1])) {
      v->real = true;
      for (p++; digit(*p);) p++;
    }
    if (*p == 'e' || *p == 'E') {
      const char *e = p + 1 + (p[1] == '-' || p[1] == '+');
      if (digit(*e)) {
        v->real = true;
        while (digit(*e)) e++;
        p = e;
      }
    }
  }
  if (p - l->at > MAX_NUMBER) ir_lex_fail(l, "the number has more than %d characters", MAX_NUMBER);
  v->f = to_double(l->at, (size_t)(p - l->at));
  const char *s = p;
  while (name_char(*p) && !(p[0] == '.' && p[1] == '.')) p++;
  if (p > s) {
    v->suffix = ir_dtype_parse(s, (size_t)(p - s));
    if (v->suffix == TN_NONE) ir_lex_fail_at(l, s, "'%.*s' after a number is not a dtype", (int)(p - s > 40 ? 40 : p - s), s);
  }
  l->token = IR_T_NUMBER;
  l->p = p;
}

static void read_string(ir_lexer *l) {
  ir_text t = {.ctx = l->ctx};
  const char *p = l->at + 1;
  for (; *p != '"'; p++) {
    if (*p == 0 || *p == '\n') ir_lex_fail(l, "a string without its closing quote");
    if (t.n >= MAX_STRING) ir_lex_fail(l, "a string of more than %d bytes", MAX_STRING);
    char c = *p;
    if (c == '\\') {
      switch (*++p) {
      case 'n': c = '\n'; break;
      case 't': c = '\t'; break;
      case '"': c = '"'; break;
      case '\\': c = '\\'; break;
      case 'x':
        if (hex(p[1]) < 0 || hex(p[2]) < 0) ir_lex_fail_at(l, p - 1, "\\x needs two hexadecimal digits");
        c = (char)(hex(p[1]) << 4 | hex(p[2]));
        p += 2;
        if (!c) ir_lex_fail_at(l, p - 3, "a string cannot hold a zero byte");
        break;
      default: ir_lex_fail_at(l, p, "this escape is not known");
      }
    }
    ir_put_bytes(&t, &c, 1);
  }
  l->word = ir_intern(l->ctx, ir_text_str(&t));
  l->token = IR_T_STRING;
  l->p = p + 1;
}

void ir_lex_next(ir_lexer *l) {
  static const char *const puncts[] = {/* longer ones first */
      ":=", "->", "..", "+=", "*=", "|=", "&=", "==", "!=", "<=", ">=", "<<", ">>", "(", ")", "[", "]", "{", "}",
      "<", ">", ",", ":", ";", "=", "+", "-", "*", "/", "%", "|", "&", "^", "!", "@"};
  const char *p = l->p;
  for (;; p++) {
    if (*p == '#')
      while (*p && *p != '\n') p++;
    if (*p == '\n' && l->lines) break;
    if (*p != ' ' && *p != '\t' && *p != '\n' && *p != '\r') break;
  }
  l->at = p;
  l->word = "";
  if (*p == 0) {
    l->token = IR_T_END;
    l->p = p;
  } else if (*p == '\n') {
    l->token = IR_T_LINE;
    l->p = p + 1;
  } else if (*p == '"') {
    read_string(l);
  } else if (digit(*p)) {
    read_number(l);
  } else if (name_end(p) > p) {
    const char *end = name_end(p);
    if (end - p > MAX_STRING) ir_lex_fail(l, "a name of more than %d bytes", MAX_STRING);
    char small[128];
    size_t n = (size_t)(end - p);
    char *copy = n < sizeof small ? small : ir_alloc(l->ctx, n + 1);
    memcpy(copy, p, n);
    copy[n] = 0;
    l->word = ir_intern(l->ctx, copy);
    l->token = IR_T_NAME;
    l->p = end;
  } else {
    for (int i = 0; i < IR_COUNT(puncts); i++) {
      size_t n = strlen(puncts[i]);
      if (strncmp(p, puncts[i], n) != 0) continue;
      l->word = puncts[i];
      l->token = IR_T_PUNCT;
      l->p = p + n;
      return;
    }
    if (*p > 32 && *p < 127) ir_lex_fail(l, "the character '%c' has no meaning here", *p);
    ir_lex_fail(l, "the byte 0x%02x has no meaning here", (unsigned char)*p);
  }
}

void ir_lex_start(ir_lexer *l, tn_ctx *ctx, const char *text, const char *file, bool lines) {
  *l = (ir_lexer){.ctx = ctx, .file = file && *file ? file : "text", .text = text, .p = text, .at = text, .lines = lines};
  ir_lex_next(l);
}

bool ir_lex_at(const ir_lexer *l, const char *word) {
  return (l->token == IR_T_NAME || l->token == IR_T_PUNCT) && strcmp(l->word, word) == 0;
}

bool ir_lex_accept(ir_lexer *l, const char *word) {
  if (!ir_lex_at(l, word)) return false;
  ir_lex_next(l);
  return true;
}

void ir_lex_expect(ir_lexer *l, const char *word) {
  if (ir_lex_accept(l, word)) return;
  char what[80];
  snprintf(what, sizeof what, "'%s'", word);
  ir_lex_expected(l, what);
}

const char *ir_lex_name(ir_lexer *l, const char *what) {
  if (l->token != IR_T_NAME && l->token != IR_T_STRING) ir_lex_expected(l, what);
  const char *name = l->word;
  ir_lex_next(l);
  return name;
}

const char *ir_lex_string(ir_lexer *l, const char *what) {
  if (l->token != IR_T_STRING) ir_lex_expected(l, what);
  const char *s = l->word;
  ir_lex_next(l);
  return s;
}

int64_t ir_lex_int(ir_lexer *l, const char *what) {
  const char *at = l->at;
  bool negative = ir_lex_accept(l, "-");
  const ir_number *v = &l->number;
  if (l->token != IR_T_NUMBER || v->real || v->suffix != TN_NONE) ir_lex_expected(l, what);
  if (v->big || v->i > (uint64_t)INT64_MAX + negative) ir_lex_fail_at(l, at, "the number does not fit 64 bits");
  int64_t r = negative ? (int64_t)(0 - v->i) : (int64_t)v->i;
  ir_lex_next(l);
  return r;
}

bool ir_lex_at_dtype(const ir_lexer *l) {
  return l->token == IR_T_NAME && ir_dtype_parse(l->word, strlen(l->word)) != TN_NONE;
}

tn_dtype ir_lex_dtype(ir_lexer *l) {
  if (!ir_lex_at_dtype(l)) ir_lex_expected(l, "a dtype");
  tn_dtype t = ir_dtype_parse(l->word, strlen(l->word));
  ir_lex_next(l);
  return t;
}

/* ---- writing ---- */

/* Words that would be read as something else where a name begins a statement or an expression. */
static const char *const reserved[] = {"for", "while", "if", "else", "let", "alloc", "tile", "true", "false",
                                       "nan", "inf", "cast", "bitcast"};

bool ir_is_bare_name(const char *s) {
  if (*s == 0 || *name_end(s) != 0) return false;
  for (int i = 0; i < IR_COUNT(reserved); i++)
    if (strcmp(s, reserved[i]) == 0) return false;
  return true;
}

void ir_put_string(ir_text *t, const char *s) {
  ir_put_bytes(t, "\"", 1);
  for (; *s; s++) {
    unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\') ir_put(t, "\\%c", c);
    else if (c == '\n') ir_put_bytes(t, "\\n", 2);
    else if (c == '\t') ir_put_bytes(t, "\\t", 2);
    else if (c < 32 || c == 127) ir_put(t, "\\x%02x", c);
    else ir_put_bytes(t, s, 1);
  }
  ir_put_bytes(t, "\"", 1);
}

void ir_put_name(ir_text *t, const char *name) {
  if (ir_is_bare_name(name)) ir_put_bytes(t, name, strlen(name));
  else ir_put_string(t, name);
}

void ir_put_float(ir_text *t, tn_dtype dtype, double v) {
  if (isnan(v) || isinf(v)) {
    ir_put(t, "%s", isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
    return;
  }
  char s[64];
  bool plain = fabs(v) < 0x1p24 && v == nearbyint(v); /* 65504.0 rather than 6.55e+04, which is enough for f16 */
  if (plain) snprintf(s, sizeof s, "%.1f", v);
  for (int digits = 1; digits <= 17 && !plain; digits++) {
    snprintf(s, sizeof s, "%.*g", digits, v);
    if (ir_round_float(dtype, strtod(s, NULL)) == v) break;
  }
  char point[8];
  radix(point);
  char *at = strstr(s, point);
  if (at) {
    *at = '.';
    memmove(at + 1, at + strlen(point), strlen(at + strlen(point)) + 1);
  }
  ir_put(t, "%s%s", s, strpbrk(s, ".e") ? "" : ".0");
}

void ir_put_indent(ir_text *t, int depth) {
  for (int i = 0; i < depth; i++) ir_put_bytes(t, "  ", 2);
}

/* ---- maps ---- */

static size_t slot_of(const ir_map *m, const void *key) {
  uint64_t h = (uint64_t)(uintptr_t)key * 0x9e3779b97f4a7c15u;
  size_t i = (size_t)(h >> 20) & (m->cap - 1);
  while (m->keys[i] && m->keys[i] != key) i = (i + 1) & (m->cap - 1);
  return i;
}

void *ir_map_get(const ir_map *m, const void *key) { return m && m->cap ? m->values[slot_of(m, key)] : NULL; }

void ir_map_set(ir_map *m, const void *key, void *value) {
  if (m->cap && m->keys[slot_of(m, key)]) { /* replacing never throws */
    m->values[slot_of(m, key)] = value;
    return;
  }
  if (m->n * 2 >= m->cap) {
    ir_map bigger = {.ctx = m->ctx, .cap = m->cap ? m->cap * 2 : 32};
    bigger.keys = IR_NEW_ARRAY(m->ctx, const void *, bigger.cap);
    bigger.values = IR_NEW_ARRAY(m->ctx, void *, bigger.cap);
    for (size_t i = 0; i < m->cap; i++)
      if (m->keys[i]) {
        size_t j = slot_of(&bigger, m->keys[i]);
        bigger.keys[j] = m->keys[i];
        bigger.values[j] = m->values[i];
        bigger.n++;
      }
    *m = bigger;
  }
  size_t i = slot_of(m, key);
  if (!m->keys[i]) {
    m->keys[i] = key;
    m->n++;
  }
  m->values[i] = value;
}
