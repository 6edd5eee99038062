/*
 * Find long runs of letters in bytes: the inner loop of views/runs.py. views/run_spans.py does the
 * same by Hyperscan and gives the same answers.
 *
 * spans(text, at) -> [(start, end), ...]      end(text, at) -> int
 *
 * Nothing is read outside the buffer given, nothing is kept, no memory is taken but for the
 * answer. Built for the limited API of 3.12: one file serves all later versions.
 */
#define Py_LIMITED_API 0x030C0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define EDITION 1 /* of the arguments: run_spans.py takes no other */
#define RUN_BYTES_MIN 48

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

/* Whatever is no letter ends a run, which begins behind the one before it. Two of those that
   have a run between them, and stand in one step, leave the middle of it to that. */
#define MIDDLE 0x0000ffffffff0000u

static int find(PyObject *found, const uint8_t *text, Py_ssize_t size, Py_ssize_t start)
{
    Py_ssize_t at = start; /* of the run that may begin at start, so much is known to be letters */
    while (at + STEP <= size) {
        uint64_t ends = others(text + at);
        if (!ends) {
            at += STEP;
            continue;
        }
        Py_ssize_t end = at + __builtin_ctzll(ends);
        if (end - start >= RUN_BYTES_MIN && append(found, start, end))
            return -1;
        if (!(ends & MIDDLE))
            while (ends & (ends - 1)) {
                start = at + __builtin_ctzll(ends) + 1;
                ends &= ends - 1;
                end = at + __builtin_ctzll(ends);
                if (end - start >= RUN_BYTES_MIN && append(found, start, end))
                    return -1;
            }
        start = at + STEP - __builtin_clzll(ends);
        at += STEP;
    }
    for (Py_ssize_t end; at <= size; start = at = end + 1) {
        end = end_of(text, size, at);
        if (end - start >= RUN_BYTES_MIN && append(found, start, end))
            return -1;
    }
    return 0;
}

PyDoc_STRVAR(spans_doc,
"spans(text, at, /)\n--\n\nReturn where long runs begin and end in text, see run_spans.py.");

static PyObject *spans(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer text;
    Py_ssize_t at;
    if (!PyArg_ParseTuple(args, "y*n:spans", &text, &at))
        return NULL;
    PyObject *found = NULL;
    if (at < 0)
        PyErr_SetString(PyExc_ValueError, "an offset is not negative");
    else if ((found = PyList_New(0)) != NULL && find(found, text.buf, text.len, at))
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
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    return PyModule_AddIntConstant(module, "EDITION", EDITION)
        || PyModule_AddIntConstant(module, "RUN_BYTES_MIN", RUN_BYTES_MIN);
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
