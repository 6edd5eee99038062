/*
 * Find in bytes what views may be opened for: the inner loops of views/runs.py and of the gates
 * for bytes above 0x7f. views/run_spans.py does the same without what is compiled: it may return
 * more runs, of which those are looked at by Hyperscan that are few enough here.
 *
 * spans(text, at, low, whole) -> [(start, end), ...]     end(text, at) -> int
 * may_hold(text) -> bool                                 high(text, most) -> [(start, end), ...]
 *
 * Nothing is read outside the buffer given, nothing is kept, no memory is taken but for the
 * answer. Built for the limited API of 3.12: one file serves all later versions.
 */
#define Py_LIMITED_API 0x030C0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define EDITION 2 /* of the arguments: run_spans.py takes no other */
#define RUN_BYTES_MIN 48
#define FEW_BYTES 4096 /* a longer run is followed piece by piece, whatever it holds */
#define SHORT_BYTES 160
#define HEAD_BYTES 256
#define PACKED_KINDS_MIN 46
#define BLOCK 16 /* bytes above 0x7f are told by blocks of so many */

/* A-Z a-z 0-9 + / - _ */
static const uint8_t IS_LETTER[256] = {
    ['+'] = 1, ['-'] = 1, ['_'] = 1, ['/'] = 1,
    ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1,
    ['5'] = 1, ['6'] = 1, ['7'] = 1, ['8'] = 1, ['9'] = 1,
    ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1, ['F'] = 1, ['G'] = 1, ['H'] = 1,
    ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1, ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1,
    ['Q'] = 1, ['R'] = 1, ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1,
    ['Y'] = 1, ['Z'] = 1,
    ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1, ['f'] = 1, ['g'] = 1, ['h'] = 1,
    ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1, ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1,
    ['q'] = 1, ['r'] = 1, ['s'] = 1, ['t'] = 1, ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1,
    ['y'] = 1, ['z'] = 1,
};

#define STEP 64

#ifdef __SSE2__
/* Which of 16 bytes are from low to high. */
static inline __m128i between(__m128i bytes, char low, char high)
{
    __m128i above = _mm_sub_epi8(bytes, _mm_set1_epi8(low));
    return _mm_cmpeq_epi8(_mm_min_epu8(above, _mm_set1_epi8((char)(high - low))), above);
}

static inline uint64_t letters_of_16(const uint8_t *bytes)
{
    __m128i all = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    __m128i found = between(_mm_or_si128(all, _mm_set1_epi8(0x20)), 'a', 'z');
    found = _mm_or_si128(found, between(all, '/', '9'));
    found = _mm_or_si128(found, _mm_cmpeq_epi8(all, _mm_set1_epi8('+')));
    found = _mm_or_si128(found, _mm_cmpeq_epi8(all, _mm_set1_epi8('-')));
    found = _mm_or_si128(found, _mm_cmpeq_epi8(all, _mm_set1_epi8('_')));
    return (uint64_t)(unsigned)_mm_movemask_epi8(found);
}

/* Which of STEP bytes are no letters, a bit each. */
static inline uint64_t others(const uint8_t *bytes)
{
    return ~(letters_of_16(bytes) | letters_of_16(bytes + 16) << 16
             | letters_of_16(bytes + 32) << 32 | letters_of_16(bytes + 48) << 48);
}
#else
static inline uint64_t others(const uint8_t *bytes)
{
    uint64_t found = 0;
    for (unsigned each = 0; each < STEP; each++)
        found |= (uint64_t)!IS_LETTER[bytes[each]] << each;
    return found;
}
#endif

/* Return where the run that goes on at `at` ends. */
static Py_ssize_t end_of(const uint8_t *text, Py_ssize_t size, Py_ssize_t at)
{
    for (; at + STEP <= size; at += STEP) {
        uint64_t found = others(text + at);
        if (found)
            return at + __builtin_ctzll(found);
    }
    while (at < size && IS_LETTER[text[at]])
        at++;
    return at;
}

static int append(PyObject *found, Py_ssize_t start, Py_ssize_t end)
{
    PyObject *first = PyLong_FromSsize_t(start), *last = PyLong_FromSsize_t(end), *span = NULL;
    if (first != NULL && last != NULL)
        span = PyTuple_Pack(2, first, last);
    int failed = span == NULL || PyList_Append(found, span);
    Py_XDECREF(first);
    Py_XDECREF(last);
    Py_XDECREF(span);
    return failed ? -1 : 0;
}

/* What a digit may be in text that is written in base64 (text_forms.py): the first, second,
   third of the four that are three bytes. */
enum {
    FIRST = 1, SECOND = 2, THIRD = 4,
    HIGH_NIBBLE = 8, LOW_NIBBLE = 16, /* of a letter in hexadecimal */
    UPPER_32 = 32, LOWER_32 = 64,
};

static uint8_t digits[256];

static void fill_digits(void)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_";
    for (int each = 0; letters[each]; each++) {
        int value = each < 64 ? each : each - 2;
        uint8_t *kinds = &digits[(uint8_t)letters[each]];
        *kinds |= (value >= 8 && value < 32) * FIRST;
        *kinds |= ((value & 15) >= 2 && (value & 15) <= 7) * SECOND;
        *kinds |= !(value & 2) * THIRD;
    }
    for (const char *hex = "0123456789abcdefABCDEF"; *hex; hex++)
        digits[(uint8_t)*hex] |= LOW_NIBBLE;
    for (int each = '2'; each <= '7'; each++)
        digits[each] |= HIGH_NIBBLE | UPPER_32 | LOWER_32;
    for (int each = 0; each < 26; each++) {
        digits['A' + each] |= UPPER_32;
        digits['a' + each] |= LOWER_32;
    }
}

static inline int is_group_64(const uint8_t *at)
{
    return digits[at[0]] & digits[at[1]] >> 1 & digits[at[2]] >> 2 & FIRST;
}

static inline int is_text_in_hex(const uint8_t *at)
{
    return (digits[at[0]] & digits[at[1]] >> 1 & HIGH_NIBBLE) || (at[0] == '0' && at[1] == '0');
}

typedef int Fits(const uint8_t *at);

/* Whether `count` groups of `each` bytes fit that stand behind each other, at any alignment.
   Of so many there is one at each count-th place of its alignment: only there it is looked. */
static inline int holds_groups(const uint8_t *run, Py_ssize_t size, Fits *fits, Py_ssize_t each,
                               Py_ssize_t count)
{
    for (Py_ssize_t first = (count - 1) * each; first < count * each; first++)
        for (Py_ssize_t at = first; at + each <= size; at += count * each) {
            if (!fits(run + at))
                continue;
            Py_ssize_t groups = 1, other;
            for (other = at - each; other >= 0 && groups < count && fits(run + other);
                 other -= each)
                groups++;
            for (other = at + each; other + each <= size && groups < count && fits(run + other);
                 other += each)
                groups++;
            if (groups == count)
                return 1;
        }
    return 0;
}

static int holds_groups_64(const uint8_t *run, Py_ssize_t size)
{
    return holds_groups(run, size, is_group_64, 4, 5);
}

/* Fourteen bytes of text, with or without a NUL behind each. */
static int holds_hex(const uint8_t *run, Py_ssize_t size)
{
    return holds_groups(run, size, is_text_in_hex, 2, 14);
}

/* Of UTF-16 each eight digits have an A in the fifth and in the eighth place. */
static int holds_wide_64(const uint8_t *run, Py_ssize_t size)
{
    Py_ssize_t at = 0;
#ifdef __SSE2__
    const __m128i letter = _mm_set1_epi8('A');
    for (; at + 16 + 11 <= size; at += 16) {
        __m128i found = _mm_set1_epi8(-1);
        for (int each = 0; each < 12; each += each == 3 ? 5 : 3)
            found = _mm_and_si128(found, _mm_cmpeq_epi8(letter,
                _mm_loadu_si128((const __m128i *)(const void *)(run + at + each))));
        if (_mm_movemask_epi8(found))
            return 1;
    }
#endif
    for (; at + 11 < size; at++)
        if (run[at] == 'A' && run[at + 3] == 'A' && run[at + 8] == 'A' && run[at + 11] == 'A')
            return 1;
    return 0;
}

/* Whether a run begins like one that is packed, or like base32. */
static int begins_as_something(const uint8_t *run)
{
    static const char heads[] = "H4KLUEQl/TeJeNeAeF" "1f1F285042fdfDFdFD";
    for (const char *head = heads; *head; head += 2)
        if (run[0] == (uint8_t)head[0] && run[1] == (uint8_t)head[1])
            return 1;
    uint8_t kinds = UPPER_32 | LOWER_32;
    for (int each = 0; each < 16; each++)
        kinds &= digits[run[each]];
    return kinds != 0;
}

static int has_many_kinds(const uint8_t *run, Py_ssize_t size)
{
    uint8_t seen[256] = {0};
    int kinds = 0;
    for (Py_ssize_t at = 0; at < size && at < HEAD_BYTES; at++) {
        kinds += !seen[run[at]];
        seen[run[at]] = 1;
    }
    return kinds >= PACKED_KINDS_MIN;
}

/* Whether a run has to be looked at: what is no text in any base, and not packed, has not. */
static int may_be_worth(const uint8_t *run, Py_ssize_t size)
{
    return (size > SHORT_BYTES && has_many_kinds(run, size)) || begins_as_something(run)
        || holds_groups_64(run, size) || holds_hex(run, size) || holds_wide_64(run, size);
}

typedef struct {
    PyObject *found;
    const uint8_t *text;
    Py_ssize_t size, low, whole;
} Search;

/* Note a run if it is new, and long, open, or may be worth to be looked at. */
static int note(const Search *search, Py_ssize_t start, Py_ssize_t end)
{
    if (end - start < RUN_BYTES_MIN || end <= search->low)
        return 0;
    if (end < search->whole && end - start <= FEW_BYTES
        && !may_be_worth(search->text + start, end - start))
        return 0;
    return append(search->found, start, end);
}

/* Whatever is no letter ends a run, which begins behind the one before it. Two of those that
   have a run between them, and stand in one step, leave the middle of it to that. */
#define MIDDLE 0x0000ffffffff0000u

static int find(const Search *search, Py_ssize_t start)
{
    Py_ssize_t at = start; /* from start to here all are letters */
    const uint8_t *text = search->text;
    while (at + STEP <= search->size) {
        uint64_t ends = others(text + at);
        if (!ends) {
            at += STEP;
            continue;
        }
        Py_ssize_t end = at + __builtin_ctzll(ends);
        if (note(search, start, end))
            return -1;
        if (!(ends & MIDDLE))
            while (ends & (ends - 1)) {
                start = at + __builtin_ctzll(ends) + 1;
                ends &= ends - 1;
                if (note(search, start, at + __builtin_ctzll(ends)))
                    return -1;
            }
        start = at + STEP - __builtin_clzll(ends);
        at += STEP;
    }
    for (Py_ssize_t end; at <= search->size; start = at = end + 1) {
        end = end_of(text, search->size, at);
        if (note(search, start, end))
            return -1;
    }
    return 0;
}

/* Whether one of `size` bytes, BLOCK at most, is above 0x7f. */
static inline int is_high(const uint8_t *bytes, Py_ssize_t size)
{
    uint64_t words[BLOCK / 8] = {0};
    if (size >= BLOCK)
        memcpy(words, bytes, BLOCK);
    else
        memcpy(words, bytes, (size_t)size);
    return ((words[0] | words[1]) & 0x8080808080808080u) != 0;
}

/* Note where blocks with such a byte are, those behind each other as one; where there are more
   than `most`, all as one. */
static int find_high(PyObject *found, const uint8_t *text, Py_ssize_t size, Py_ssize_t most)
{
    for (Py_ssize_t at = 0; at < size; at += BLOCK) {
        if (!is_high(text + at, size - at))
            continue;
        Py_ssize_t start = at;
        for (at += BLOCK; at < size && is_high(text + at, size - at);)
            at += BLOCK;
        if (most-- <= 0)
            return PyList_SetSlice(found, 0, PyList_Size(found), NULL) || append(found, 0, size);
        if (append(found, start, at < size ? at : size))
            return -1;
    }
    return 0;
}

PyDoc_STRVAR(spans_doc,
"spans(text, at, low, whole, /)\n--\n\nReturn where long runs are in text, see run_spans.py.");

static PyObject *spans(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer text;
    Py_ssize_t at;
    Search search;
    if (!PyArg_ParseTuple(args, "y*nnn:spans", &text, &at, &search.low, &search.whole))
        return NULL;
    search.found = NULL;
    search.text = text.buf;
    search.size = text.len;
    if (at < 0)
        PyErr_SetString(PyExc_ValueError, "an offset is not negative");
    else if ((search.found = PyList_New(0)) != NULL && find(&search, at))
        Py_CLEAR(search.found);
    PyBuffer_Release(&text);
    return search.found;
}

PyDoc_STRVAR(may_hold_doc,
"may_hold(text, /)\n--\n\nReturn whether digits of base64 may be those of text.");

static PyObject *may_hold(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer text;
    if (!PyArg_ParseTuple(args, "y*:may_hold", &text))
        return NULL;
    int found = holds_groups_64(text.buf, text.len) || holds_wide_64(text.buf, text.len);
    PyBuffer_Release(&text);
    return PyBool_FromLong(found);
}

PyDoc_STRVAR(high_doc,
"high(text, most, /)\n--\n\nReturn where blocks with bytes above 0x7f are, see run_spans.py.");

static PyObject *high(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer text;
    Py_ssize_t most;
    if (!PyArg_ParseTuple(args, "y*n:high", &text, &most))
        return NULL;
    PyObject *found = PyList_New(0);
    if (found != NULL && find_high(found, text.buf, text.len, most))
        Py_CLEAR(found);
    PyBuffer_Release(&text);
    return found;
}

PyDoc_STRVAR(end_doc,
"end(text, at, /)\n--\n\nReturn where the run that goes on at an offset ends, see run_spans.py.");

static PyObject *end(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer text;
    Py_ssize_t at;
    if (!PyArg_ParseTuple(args, "y*n:end", &text, &at))
        return NULL;
    PyObject *found = NULL;
    if (at < 0)
        PyErr_SetString(PyExc_ValueError, "an offset is not negative");
    else
        found = PyLong_FromSsize_t(at < text.len ? end_of(text.buf, text.len, at) : text.len);
    PyBuffer_Release(&text);
    return found;
}

static PyMethodDef methods[] = {
    {"spans", spans, METH_VARARGS, spans_doc},
    {"end", end, METH_VARARGS, end_doc},
    {"may_hold", may_hold, METH_VARARGS, may_hold_doc},
    {"high", high, METH_VARARGS, high_doc},
    {NULL, NULL, 0, NULL},
};

static const struct {
    const char *name;
    long value;
} constants[] = {
    {"EDITION", EDITION},
    {"RUN_BYTES_MIN", RUN_BYTES_MIN},
    {"FEW_BYTES", FEW_BYTES},
    {"SHORT_BYTES", SHORT_BYTES},
    {"HEAD_BYTES", HEAD_BYTES},
    {"PACKED_KINDS_MIN", PACKED_KINDS_MIN},
};

static int fill(PyObject *module)
{
    fill_digits();
    for (size_t each = 0; each < sizeof constants / sizeof *constants; each++)
        if (PyModule_AddIntConstant(module, constants[each].name, constants[each].value))
            return -1;
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_runs", "The inner loop of views/runs.py.", 0, methods, slots,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__runs(void)
{
    return PyModuleDef_Init(&module_def);
}
