// What fastseg/Segmenter.java calls.
#include <jni.h>

#include "../onnxruntime.hpp"
#include "camera.hpp"

namespace {

using fastseg::Error;
using fastseg::Plane;
using fastseg::Turn;

struct Native {
  fastseg::Segmenter<fastseg::OnnxRuntime> segmenter;
  std::vector<std::uint8_t> rgb;
};

// Calls what may throw; its one line becomes Java's exception.
template <class Call>
void guarded(JNIEnv* env, const Call& call) {
  try {
    call();
  } catch (const std::exception& error) {
    std::string line = error.what();  // Java's UTF-8 is its own: nothing but ASCII is the same
    std::replace_if(line.begin(), line.end(), [](char byte) { return byte < ' ' || byte > '~'; },
                    '?');
    env->ThrowNew(env->FindClass("java/lang/IllegalArgumentException"), line.c_str());
  }
}

// A text as Java's getBytes(UTF_8) gives it: what JNI gives of a String is no UTF-8 past U+FFFF.
std::string text_of(JNIEnv* env, jbyteArray text) {
  std::string result(static_cast<std::size_t>(env->GetArrayLength(text)), '\0');
  env->GetByteArrayRegion(text, 0, static_cast<jsize>(result.size()),
                          reinterpret_cast<jbyte*>(result.data()));
  return result;
}

// Of a buffer that is null, or not direct, the address is null, which check() refuses.
Plane plane_of(JNIEnv* env, jobject buffer, jint row_stride, jint pixel_stride) {
  if (buffer == nullptr) return {nullptr, 0, row_stride, pixel_stride};
  const void* const address = env->GetDirectBufferAddress(buffer);
  return {static_cast<const std::uint8_t*>(address), env->GetDirectBufferCapacity(buffer),
          row_stride, pixel_stride};
}

// Makes a frame upright with `convert` and writes its ids.
template <class Convert>
void infer(JNIEnv* env, jlong handle, const Turn& turn, jobject classes, const Convert& convert) {
  auto* const native = reinterpret_cast<Native*>(handle);
  if (native == nullptr) throw Error("the segmenter is closed; make another");
  plane_of(env, classes, turn.width, 1).check("the buffer of classes", turn.width, turn.height, 1);
  native->rgb.resize(std::size_t{3} * static_cast<std::size_t>(turn.width) *
                     static_cast<std::size_t>(turn.height));
  convert(native->rgb.data());
  native->segmenter.infer({native->rgb.data(), turn.width, turn.height},
                          static_cast<std::uint8_t*>(env->GetDirectBufferAddress(classes)));
}

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_fastseg_Segmenter_open(JNIEnv* env, jclass, jbyteArray folder_text,
                                                    jbyteArray library, jint threads) {
  Native* native = nullptr;
  guarded(env, [&] {
    const std::string folder = text_of(env, folder_text);
    const fastseg::Contract contract = fastseg::read_contract(folder);
    fastseg::OnnxRuntime engine(text_of(env, library), folder, contract, threads);
    native = new Native{{contract, std::move(engine)}, {}};
  });
  return reinterpret_cast<jlong>(native);
}

JNIEXPORT void JNICALL Java_fastseg_Segmenter_inferRgba(JNIEnv* env, jclass, jlong handle,
                                                        jobject rgba, jint row_stride, jint width,
                                                        jint height, jint degrees,
                                                        jobject classes) {
  guarded(env, [&] {
    const Turn turn(width, height, degrees);
    infer(env, handle, turn, classes, [&](std::uint8_t* rgb) {
      fastseg::rgba_to_rgb(plane_of(env, rgba, row_stride, 4), width, height, turn, rgb);
    });
  });
}

JNIEXPORT void JNICALL Java_fastseg_Segmenter_inferYuv(JNIEnv* env, jclass, jlong handle, jobject y,
                                                       jint y_row_stride, jobject u, jobject v,
                                                       jint row_stride, jint pixel_stride,
                                                       jint width, jint height, jint degrees,
                                                       jobject classes) {
  guarded(env, [&] {
    const Turn turn(width, height, degrees);
    infer(env, handle, turn, classes, [&](std::uint8_t* rgb) {
      fastseg::yuv_to_rgb(plane_of(env, y, y_row_stride, 1),
                          plane_of(env, u, row_stride, pixel_stride),
                          plane_of(env, v, row_stride, pixel_stride), width, height, turn, rgb);
    });
  });
}

JNIEXPORT void JNICALL Java_fastseg_Segmenter_close(JNIEnv*, jclass, jlong handle) {
  delete reinterpret_cast<Native*>(handle);
}
}
