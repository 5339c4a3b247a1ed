/* grad_text.c — rules as text; the language stands at the head of grad.h. */
#include "lower/grad.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAMES = 8 };

typedef struct reader {
  lw_grad *d;
  const char *text, *s;
  int nnames;
  struct {
    const char *name;
    size_t length;
    ir_value *v;
  } names[MAX_NAMES];
} reader;

static void wrong(const reader *r) IR_NORETURN;
static void wrong(const reader *r) { ir_bug(r->d->ctx, "%s: the gradient rule '%s' is wrong at '%s'", r->d->n->op->name, r->text, r->s); }

static void blanks(reader *r) { r->s += strspn(r->s, " "); }
static bool accept(reader *r, const char *token) {
  blanks(r);
  size_t n = strlen(token);
  if (strncmp(r->s, token, n) != 0) return false;
  r->s += n;
  return true;
}
static void expect(reader *r, const char *token) {
  if (!accept(r, token)) wrong(r);
}
static size_t word(reader *r) {
  blanks(r);
  size_t n = 0;
  while (isalnum((unsigned char)r->s[n]) || r->s[n] == '_') n++;
  return n;
}

static ir_value *compared(reader *r);

static ir_value *number(reader *r, double v) { return lw_number(r->d->g, r->d->dy[0], v); }

/* $alpha=0.01 */
static ir_value *attribute(reader *r) {
  size_t n = word(r);
  const char *name = ir_strndup(r->d->ctx, r->s, n);
  r->s += n;
  expect(r, "=");
  char *end;
  double otherwise = strtod(r->s, &end);
  if (end == r->s) wrong(r);
  r->s = end;
  return number(r, (float)ir_attr_get_float(r->d->n, name, otherwise)); /* as the op rounds it */
}

static ir_value *call(reader *r, const char *name, size_t n) {
  ir_value *args[4];
  int count = 0;
  do {
    if (count == IR_COUNT(args)) wrong(r);
    args[count++] = compared(r);
  } while (accept(r, ","));
  expect(r, ")");
  return lw_node(r->d->g, r->d->n, ir_strndup(r->d->ctx, name, n), count, args);
}

static ir_value *named(reader *r, const char *name, size_t n) {
  const ir_node *node = r->d->n;
  for (int i = 0; i < r->nnames; i++)
    if (r->names[i].length == n && strncmp(r->names[i].name, name, n) == 0) return r->names[i].v;
  if (n == 2 && strncmp(name, "dy", n) == 0) return r->d->dy[0];
  if (n == 1 && *name == 'y') return node->out[0];
  int k = *name - 'a';
  if (n != 1 || k < 0 || !lw_has(node, k)) wrong(r);
  return node->in[k];
}

static ir_value *primary(reader *r) {
  blanks(r);
  if (accept(r, "(")) {
    ir_value *v = compared(r);
    expect(r, ")");
    return v;
  }
  if (accept(r, "$")) return attribute(r);
  if (accept(r, "-")) return lw_op1(r->d->g, r->d->n, "Neg", primary(r));
  if (isdigit((unsigned char)*r->s)) {
    char *end;
    double v = strtod(r->s, &end);
    r->s = end;
    return number(r, v);
  }
  size_t n = word(r);
  const char *name = r->s;
  r->s += n;
  if (!n) wrong(r);
  return accept(r, "(") ? call(r, name, n) : named(r, name, n);
}

static ir_value *binary(reader *r, const char *op, ir_value *a, ir_value *b) { return lw_op2(r->d->g, r->d->n, op, a, b); }

static ir_value *product(reader *r) {
  ir_value *v = primary(r);
  for (;;)
    if (accept(r, "*")) v = binary(r, "Mul", v, primary(r));
    else if (accept(r, "/")) v = binary(r, "Div", v, primary(r));
    else return v;
}
static ir_value *sum(reader *r) {
  ir_value *v = product(r);
  for (;;)
    if (accept(r, "+")) v = binary(r, "Add", v, product(r));
    else if (accept(r, "-")) v = binary(r, "Sub", v, product(r));
    else return v;
}
static ir_value *compared(reader *r) {
  static const struct {
    const char *token, *op;
  } table[] = {{"<=", "LessOrEqual"}, {">=", "GreaterOrEqual"}, {"==", "Equal"}, {"<", "Less"}, {">", "Greater"}};
  ir_value *v = sum(r);
  for (int i = 0; i < IR_COUNT(table); i++)
    if (accept(r, table[i].token)) return binary(r, table[i].op, v, sum(r));
  return v;
}

static void statement(reader *r) {
  size_t n = word(r);
  const char *name = r->s;
  if (!n) wrong(r);
  r->s += n;
  expect(r, "=");
  int k = n == 2 && name[0] == 'd' ? name[1] - 'a' : -1;
  if (k >= 0 && (k >= r->d->n->nin || !r->d->wanted[k])) { /* nobody asks */
    r->s += strcspn(r->s, ";");
    return;
  }
  ir_value *v = compared(r);
  if (k >= 0) {
    lw_grad_add(r->d, k, v);
    return;
  }
  if (r->nnames == MAX_NAMES) wrong(r);
  r->names[r->nnames].name = name;
  r->names[r->nnames].length = n;
  r->names[r->nnames++].v = v;
}

void lw_grad_text(lw_grad *d, const char *text) {
  if (!d->dy[0]) return;
  reader r = {.d = d, .text = text, .s = text};
  blanks(&r);
  while (*r.s) {
    statement(&r);
    blanks(&r);
    if (*r.s) expect(&r, ";");
  }
}
