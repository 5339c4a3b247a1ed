/* store_hash.c — BLAKE2b (RFC 7693) with a 16-byte digest: the identity of rows.
 *
 * Rows from strangers get merged and a hash decides that two kernels are the same,
 * so it has to be one without known collisions; BLAKE2b is the fastest of those in
 * plain 64-bit C (about 1 µs for a kernel of 1 KB).
 */
#include "autotune/store_internal.h"
#include <math.h>
#include <string.h>

static const uint64_t iv[8] = {
    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};

static inline uint64_t rotr(uint64_t x, int n) { return x >> n | x << (64 - n); }

static inline uint64_t word(const unsigned char *p) {
  return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 |
         (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

/* One G of the RFC. */
static inline void mix(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y) {
  v[a] += v[b] + x;
  v[d] = rotr(v[d] ^ v[a], 32);
  v[c] += v[d];
  v[b] = rotr(v[b] ^ v[c], 24);
  v[a] += v[b] + y;
  v[d] = rotr(v[d] ^ v[a], 16);
  v[c] += v[d];
  v[b] = rotr(v[b] ^ v[c], 63);
}

/* The arguments are the message word order of a round (RFC 7693, 2.7), written out
 * because with a table the compiler keeps indexing: half the speed. */
#define ROUND(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) \
  mix(v, 0, 4, 8, 12, w[a], w[b]);                            \
  mix(v, 1, 5, 9, 13, w[c], w[d]);                            \
  mix(v, 2, 6, 10, 14, w[e], w[f]);                           \
  mix(v, 3, 7, 11, 15, w[g], w[h]);                           \
  mix(v, 0, 5, 10, 15, w[i], w[j]);                           \
  mix(v, 1, 6, 11, 12, w[k], w[l]);                           \
  mix(v, 2, 7, 8, 13, w[m], w[n]);                            \
  mix(v, 3, 4, 9, 14, w[o], w[p])

static void compress(at_hasher *hasher, bool last) {
  uint64_t w[16], v[16];
  for (int i = 0; i < 16; i++) w[i] = word(hasher->block + 8 * i);
  for (int i = 0; i < 8; i++) {
    v[i] = hasher->h[i];
    v[8 + i] = iv[i];
  }
  v[12] ^= hasher->bytes;
  if (last) v[14] = ~v[14];
  ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
  ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
  ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
  ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
  ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
  ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
  ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
  ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
  ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
  ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
  for (int i = 0; i < 8; i++) hasher->h[i] ^= v[i] ^ v[8 + i];
}

void at_hash_start(at_hasher *h) {
  memcpy(h->h, iv, sizeof iv);
  h->h[0] ^= 0x01010000u ^ (AT_UID / 2); /* no key, digest length */
  h->bytes = 0;
  h->fill = 0;
}

void at_hash_bytes(at_hasher *h, const void *p, size_t n) {
  const unsigned char *s = p;
  while (n) {
    if (h->fill == sizeof h->block) { /* the last block is left to at_hash_end */
      h->bytes += sizeof h->block;
      compress(h, false);
      h->fill = 0;
    }
    size_t take = sizeof h->block - h->fill;
    if (take > n) take = n;
    memcpy(h->block + h->fill, s, take);
    h->fill += take;
    s += take;
    n -= take;
  }
}

void at_hash_int(at_hasher *h, int64_t v) {
  unsigned char b[8];
  for (int i = 0; i < 8; i++) b[i] = (unsigned char)((uint64_t)v >> (8 * i));
  at_hash_bytes(h, b, sizeof b);
}

void at_hash_text(at_hasher *h, const char *s) {
  size_t n = strlen(s);
  at_hash_int(h, (int64_t)n);
  at_hash_bytes(h, s, n);
}

void at_hash_real(at_hasher *h, double v) {
  uint64_t bits = 0x7ff8000000000000u; /* one NaN, one zero: SQL keeps neither sign nor payload */
  v = v == 0 ? 0 : v;
  if (!isnan(v)) memcpy(&bits, &v, sizeof bits);
  at_hash_int(h, (int64_t)bits);
}

void at_hash_end(at_hasher *h, char uid[AT_UID + 1]) {
  h->bytes += h->fill;
  memset(h->block + h->fill, 0, sizeof h->block - h->fill);
  compress(h, true);
  for (int i = 0; i < AT_UID / 2; i++) {
    unsigned byte = (unsigned)(h->h[i / 8] >> (8 * (i % 8))) & 0xff;
    uid[2 * i] = "0123456789abcdef"[byte >> 4];
    uid[2 * i + 1] = "0123456789abcdef"[byte & 15];
  }
  uid[AT_UID] = 0;
}
