/* text.h — what the texts are made of: the lexer, names, literals, expressions.
 *
 * Used by ir/text_*.c and by lower/schedule.c. Everything that reads throws TN_EINPUT
 * with file:line:column and what was expected; nothing here reads past the text, and
 * nesting is bounded, so that any input ends in a result or in an error.
 *
 * Words: names are [A-Za-z_.$][A-Za-z0-9_.$]* without ".." inside; where a name is
 * wanted a "quoted string" serves too, so any text can be a name. Numbers are
 * 12, 0x1f, 1.5, 1e-3, 0x1.8p-3, with a dtype at the end where it matters (3i64,
 * 1.5f32). '#' starts a comment to the end of the line.
 */
#ifndef IR_TEXT_H
#define IR_TEXT_H
#include "ir/ir.h"

/* ---- lexer ---- */

typedef enum ir_token { IR_T_END, IR_T_LINE, IR_T_NAME, IR_T_STRING, IR_T_NUMBER, IR_T_PUNCT } ir_token;

typedef struct ir_number {
  bool real;       /* has a point, an exponent, or is inf or nan: not a whole number */
  bool big;        /* whole, but beyond 64 bits */
  uint64_t i;      /* whole numbers: magnitude */
  double f;        /* the value as a double */
  tn_dtype suffix; /* TN_NONE: not said */
} ir_number;

typedef struct ir_lexer {
  tn_ctx *ctx;
  const char *file, *text;
  const char *p;     /* first character after the current token */
  bool lines;        /* ends of lines are tokens (IR_T_LINE), as in schedules */
  int depth;         /* nesting, see ir_lex_enter */
  /* the current token */
  ir_token token;
  const char *at;    /* its first character */
  const char *word;  /* NAME, STRING (unquoted), PUNCT: interned or static text; else "" */
  ir_number number;  /* NUMBER */
} ir_lexer;

/* Starts at the first token. `text` must outlive the lexer; `file` is for messages. */
void ir_lex_start(ir_lexer *l, tn_ctx *ctx, const char *text, const char *file, bool lines);
void ir_lex_next(ir_lexer *l);
/* Whether the current token is this bare name or punctuation. */
bool ir_lex_at(const ir_lexer *l, const char *word);
bool ir_lex_accept(ir_lexer *l, const char *word); /* and moves on if so */
void ir_lex_expect(ir_lexer *l, const char *word);
/* These read one token (ints: an optional '-' as well) and move on; `what` says in
 * messages what was wanted. Names and strings are interned. */
const char *ir_lex_name(ir_lexer *l, const char *what);
const char *ir_lex_string(ir_lexer *l, const char *what);
int64_t ir_lex_int(ir_lexer *l, const char *what);
tn_dtype ir_lex_dtype(ir_lexer *l);
bool ir_lex_at_dtype(const ir_lexer *l);
/* "file:line:column: " and the message; at the current token, or at a place in the text. */
void ir_lex_fail(const ir_lexer *l, const char *fmt, ...) IR_PRINTF(2, 3) IR_NORETURN;
void ir_lex_fail_at(const ir_lexer *l, const char *at, const char *fmt, ...) IR_PRINTF(3, 4) IR_NORETURN;
/* "expected WHAT, found ..." at the current token. */
void ir_lex_expected(const ir_lexer *l, const char *what) IR_NORETURN;
/* Nested constructs call these around themselves: too deep is an error, not a crash. */
void ir_lex_enter(ir_lexer *l);
void ir_lex_leave(ir_lexer *l);
/* "file:line" of a place in the text. */
const char *ir_lex_place(const ir_lexer *l, const char *at);
/* Runs parse(l, arg); what it throws without a place (constructors: overflow) gets one. */
void ir_lex_run(ir_lexer *l, void (*parse)(ir_lexer *l, void *arg), void *arg);

/* ---- writing words ---- */

bool ir_is_bare_name(const char *s);             /* needs no quotes anywhere */
void ir_put_name(ir_text *t, const char *name);  /* quoted where needed */
void ir_put_string(ir_text *t, const char *s);   /* always quoted */
/* A short decimal that reads back as v, a value of that float dtype: "1.0", "1e-05", "nan", "-inf". */
void ir_put_float(ir_text *t, tn_dtype dtype, double v);
void ir_put_indent(ir_text *t, int depth);       /* two blanks each */

/* ---- maps from pointers (interned names, variables, ...) ---- */

typedef struct ir_map {
  tn_ctx *ctx;
  const void **keys; /* open addressing; cap a power of two */
  void **values;
  size_t n, cap;
} ir_map;
void *ir_map_get(const ir_map *m, const void *key); /* null when absent */
void ir_map_set(ir_map *m, const void *key, void *value);

/* ---- expressions (text_expr.c) ---- */

/* What names mean in an expression. Either may be null: there are none. */
typedef struct ir_env {
  void *user;
  ir_var *(*var)(void *user, const char *name); /* interned name; null when unknown */
  ir_buf *(*buf)(void *user, const char *name);
} ir_env;

/* Reads an expression of dtype `want`, to which bare literals are converted;
 * TN_NONE: of any, a bare whole number being an index. */
ix ir_read_expr(ir_lexer *l, const ir_env *env, tn_dtype want);
/* As ir_read_expr for a text that is one expression. */
ix ix_parse(tn_ctx *ctx, const char *text, const char *file, const ir_env *env, tn_dtype want);
/* Writes e. names: ir_var* and ir_buf* to their printed name (absent or null map: their
 * own). `want`: the dtype that a reader will expect, TN_NONE when any; it decides
 * whether a literal needs its dtype. */
void ir_put_expr(ir_text *t, ix e, const ir_map *names, tn_dtype want);
/* A literal of dtype t at the current token, as in lists of values. */
ir_scalar ir_read_scalar(ir_lexer *l, tn_dtype t);
void ir_put_scalar(ir_text *t, tn_dtype dtype, ir_scalar v);

/* "f32[4, n] layout \"...\"": dtype, logical shape and layout of a buffer, slot or value. */
typedef struct ir_type {
  tn_dtype dtype;
  int rank;
  ix shape[IR_MAX_RANK];
  const ir_layout *layout;
} ir_type;
void ir_read_type(ir_lexer *l, const ir_env *env, ir_type *out);
void ir_put_type(ir_text *t, const ir_type *type, const ir_map *names);
/* "[lo, hi]" of a variable. */
void ir_read_range(ir_lexer *l, int64_t *lo, int64_t *hi);

/* ---- kernels inside a larger text (text_kernel.c) ---- */

ir_kernel *ir_read_kernel(ir_lexer *l); /* at the word "kernel" */
void ir_put_kernel(ir_text *t, const ir_kernel *k, int depth);
/* As ir_kernel_canonical with operands in the order that they have, which names may decide: cheaper, and equal kernels may have
 * different texts. */
const char *ir_kernel_unnamed(tn_ctx *ctx, const ir_kernel *k);
/* Range that a loop over lo .. hi gives its variable. */
void ir_loop_range(ix lo, ix hi, int64_t *var_lo, int64_t *var_hi);

/* ---- programs and graphs with their data (text_program.c, text_graph.c) ---- */

/* The bytes of a constant that the text only names: a raw slot of a program (hash 0) or
 * a large constant of a graph. Null: not available, the data stays null. */
typedef struct ir_data_source {
  void *user;
  const void *(*find)(void *user, const char *name, int64_t bytes, uint64_t hash);
} ir_data_source;
ir_program *ir_program_parse_with(tn_ctx *ctx, const char *text, const char *file, const ir_data_source *data);
ir_graph *ir_graph_parse_with(tn_ctx *ctx, const char *text, const char *file, const ir_data_source *data);
/* Content hash that graph text shows for a large constant. */
uint64_t ir_data_hash(const void *data, int64_t bytes);
#endif
