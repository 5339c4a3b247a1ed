/* store_json.c — rows as lines of JSON, for export, import and the eyes of other
 * programs. Numbers do not depend on the locale. */
#include "autotune/store_internal.h"
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Length of the valid UTF-8 sequence at s, or 0. */
static int utf8(const char *text) {
  const unsigned char *s = (const unsigned char *)text;
  if (s[0] < 0x80) return 1;
  int n = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
  for (int i = 1; i < n; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f))) return 0;
  if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))) return 0;
  return n;
}

void at_json_text(FILE *out, const char *s) {
  putc('"', out);
  while (*s) {
    int n = utf8(s);
    if (n == 0) {
      fputs("\\ufffd", out);
      n = 1;
    } else if (*s == '"' || *s == '\\') {
      fprintf(out, "\\%c", *s);
    } else if (*s == '\n') {
      fputs("\\n", out);
    } else if ((unsigned char)*s < 0x20) {
      fprintf(out, "\\u%04x", *s);
    } else {
      fwrite(s, 1, (size_t)n, out);
    }
    s += n;
  }
  putc('"', out);
}

static int print_number(char *out, size_t n, int digits, double v) {
  int len = snprintf(out, n, "%.*g", digits, v);
  for (char *p = out; *p; p++)
    if (!strchr("0123456789+-einfa", *p)) *p = '.';
  return len;
}

/* Length of the JSON number at s, at most 60, or 0; its value in *v. */
static int parse_number(const char *s, double *v) {
  size_t n = strspn(s, "+-0123456789.eE");
  char copy[64], *end;
  if (n == 0 || n > 60 || s[0] == '+' || s[0] == '.') return 0;
  memcpy(copy, s, n);
  copy[n] = 0;
  char point = localeconv()->decimal_point[0];
  for (char *p = copy; *p; p++)
    if (*p == '.') *p = point;
  *v = strtod(copy, &end);
  return *end || !isfinite(*v) ? 0 : (int)n;
}

void at_json_real(FILE *out, double v) {
  char text[40];
  if (!isfinite(v)) {
    fputs("null", out);
    return;
  }
  print_number(text, sizeof text, 17, v);
  fputs(text, out);
}

void at_json_row(FILE *out, const at_row *r) {
  fprintf(out, "{\"table\":\"%s\",\"uid\":\"%s\"", r->table->name, r->uid);
  for (int i = 0; i < r->table->ncols; i++) {
    fprintf(out, ",\"%s\":", r->table->cols[i].name);
    switch (r->table->cols[i].kind) {
      case AT_INT: fprintf(out, "%lld", (long long)r->v[i].i); break;
      case AT_REAL: at_json_real(out, r->v[i].d); break;
      case AT_LIST: fputs(r->v[i].s, out); break;
      default: at_json_text(out, r->v[i].s);
    }
  }
  if (r->table->changes) fprintf(out, ",\"stamp\":%lld,\"sum\":\"%s\"", (long long)r->stamp, r->sum);
  fputs("}\n", out);
}

/* ---- lists ---- */

char *at_list_text(const double *v, int n) {
  sqlite3_str *s = sqlite3_str_new(NULL);
  char text[40];
  sqlite3_str_appendchar(s, 1, '[');
  for (int i = 0; i < n; i++) {
    print_number(text, sizeof text, 10, v[i]);
    if (i) sqlite3_str_appendchar(s, 1, ',');
    sqlite3_str_appendall(s, text);
  }
  sqlite3_str_appendchar(s, 1, ']');
  return sqlite3_str_finish(s);
}

static const char *skip(const char *s) { return s + strspn(s, " \t\r\n"); }

/* Walks over a list; calls nothing back but fills `out` (may be null) up to max.
 * Returns the number of values, or -1; *end behind the bracket. */
static int walk_list(const char *s, double *out, int max, const char **end) {
  int n = 0;
  if (*s != '[') return -1;
  s = skip(s + 1);
  while (*s != ']') {
    double v;
    int len = parse_number(s, &v);
    if (!len || n == 1 << 24) return -1;
    if (out && n < max) out[n] = v;
    n++;
    s = skip(s + len);
    if (*s == ',') {
      s = skip(s + 1);
      if (*s == ']') return -1;
    } else if (*s != ']') {
      return -1;
    }
  }
  *end = s + 1;
  return n;
}

int at_list_read(const char *s, double *out, int max) {
  const char *end;
  int n = walk_list(s, out, max, &end);
  return n < 0 || *end || n > max ? 0 : n;
}

char *at_list_canonical(const char *s) {
  const char *end;
  int n = walk_list(s, NULL, 0, &end);
  double *v = n < 0 ? NULL : malloc((size_t)(n ? n : 1) * sizeof *v);
  if (!v) return NULL;
  walk_list(s, v, n, &end);
  char *text = at_list_text(v, n);
  free(v);
  return text;
}

/* ---- parsing a row ---- */

enum { MAX_PAIRS = 32 };

typedef struct pair {
  const char *key;
  char kind; /* 's' text, 'n' number, 'l' list, '0' null */
  const char *value;
} pair;

/* Hex digits of \uXXXX; -1 if they are none. */
static long hex4(const char *s) {
  long v = 0;
  for (int i = 0; i < 4; i++) {
    char c = s[i];
    int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (d < 0) return -1;
    v = v * 16 + d;
  }
  return v;
}

static char *put_utf8(char *to, long c) {
  if (c < 0x80) {
    *to++ = (char)c;
  } else if (c < 0x800) {
    *to++ = (char)(0xc0 | c >> 6);
    *to++ = (char)(0x80 | (c & 63));
  } else if (c < 0x10000) {
    *to++ = (char)(0xe0 | c >> 12);
    *to++ = (char)(0x80 | (c >> 6 & 63));
    *to++ = (char)(0x80 | (c & 63));
  } else {
    *to++ = (char)(0xf0 | c >> 18);
    *to++ = (char)(0x80 | (c >> 12 & 63));
    *to++ = (char)(0x80 | (c >> 6 & 63));
    *to++ = (char)(0x80 | (c & 63));
  }
  return to;
}

/* Unescapes the string that starts behind its quote, in place; an escape is never
 * shorter than what it stands for. Returns behind the closing quote, or null. */
static char *unescape(char *s) {
  char *to = s;
  while (*s != '"') {
    if (!*s) return NULL;
    if (*s != '\\') {
      *to++ = *s++;
      continue;
    }
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    const char *at = s[1] ? strchr(from, s[1]) : NULL;
    if (at) {
      *to++ = into[at - from];
      s += 2;
      continue;
    }
    long c = s[1] == 'u' ? hex4(s + 2) : -1;
    if (c <= 0) return NULL; /* a zero would cut the text */
    s += 6;
    if (c >= 0xd800 && c < 0xdc00) {
      long low = s[0] == '\\' && s[1] == 'u' ? hex4(s + 2) : -1;
      if (low < 0xdc00 || low > 0xdfff) return NULL;
      c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
      s += 6;
    } else if (c >= 0xdc00 && c < 0xe000) {
      return NULL;
    }
    to = put_utf8(to, c);
  }
  *to = 0;
  return s + 1;
}

static char *parse_pair(char *s, pair *p) {
  if (*s != '"') return NULL;
  p->key = s + 1;
  s = unescape(s + 1);
  if (!s) return NULL;
  s = (char *)skip(s);
  if (*s != ':') return NULL;
  s = (char *)skip(s + 1);
  p->value = s;
  double v;
  const char *end;
  int len;
  if (*s == '"') {
    p->kind = 's';
    p->value = s + 1;
    return unescape(s + 1);
  }
  if (*s == '[') {
    p->kind = 'l';
    return walk_list(s, NULL, 0, &end) < 0 ? NULL : (char *)end;
  }
  if (!strncmp(s, "null", 4)) {
    p->kind = '0';
    return s + 4;
  }
  p->kind = 'n';
  len = parse_number(s, &v);
  return len ? s + len : NULL;
}

static int parse_pairs(char *line, pair *pairs) {
  int n = 0;
  char *s = (char *)skip(line);
  if (*s != '{') return -1;
  s = (char *)skip(s + 1);
  while (*s != '}') {
    if (n == MAX_PAIRS || !(s = parse_pair(s, &pairs[n++]))) return -1;
    s = (char *)skip(s);
    if (*s == ',') s = (char *)skip(s + 1);
    else if (*s != '}') return -1;
  }
  return *skip(s + 1) ? -1 : n;
}

static const pair *find(const pair *p, int n, const char *key, const char *kinds) {
  for (int i = 0; i < n; i++)
    if (!strcmp(p[i].key, key)) return strchr(kinds, p[i].kind) ? &p[i] : NULL;
  return NULL;
}

static bool whole_number(const char *s, int64_t *v) {
  char *end;
  *v = strtoll(s, &end, 10);
  return end != s && !strchr(".eE", *end); /* of a number that parse_number passed; *end may be 0 */
}

static bool take_uid(const pair *p, char uid[AT_UID + 1]) {
  if (!p || strlen(p->value) != AT_UID) return false;
  memcpy(uid, p->value, AT_UID + 1);
  return true;
}

const char *at_json_parse_row(char *line, at_row *r, char **list) {
  pair p[MAX_PAIRS];
  *list = NULL;
  int n = parse_pairs(line, p);
  if (n < 0) return "is not a JSON object of this kind";
  const pair *table = find(p, n, "table", "s");
  if (!table) return "names no table";
  int id = 0;
  while (id < AT_TABLES && strcmp(at_tables[id].name, table->value)) id++;
  if (id == AT_TABLES) return "names an unknown table";
  at_row_start(r, (at_table_id)id);
  if (!take_uid(find(p, n, "uid", "s"), r->uid)) return "has no uid";
  for (int i = 0; i < r->table->ncols; i++) {
    const at_col *c = &r->table->cols[i];
    const char *kinds = c->kind == AT_INT ? "n" : c->kind == AT_REAL ? "n0" : c->kind == AT_LIST ? "l" : "s";
    const pair *v = find(p, n, c->name, kinds);
    if (!v) return "lacks a column";
    if (c->kind == AT_INT) {
      if (!whole_number(v->value, &r->v[i].i)) return "has a broken number";
    } else if (c->kind == AT_REAL) {
      r->v[i].d = NAN;
      if (v->kind == 'n') parse_number(v->value, &r->v[i].d);
    } else if (c->kind == AT_LIST) {
      if (!(*list = at_list_canonical(v->value))) return "has a broken list";
      r->v[i].s = *list;
    } else {
      r->v[i].s = v->value;
    }
  }
  if (r->table->changes) {
    const pair *stamp = find(p, n, "stamp", "n");
    if (!stamp || !whole_number(stamp->value, &r->stamp) || !take_uid(find(p, n, "sum", "s"), r->sum))
      return "lacks its stamp or sum";
  }
  at_row_check(r);
  return r->sound ? NULL : "does not match its hash";
}
