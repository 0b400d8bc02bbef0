package org.voxpress.android

import android.content.Context
import java.io.File
import java.security.MessageDigest
import kotlinx.coroutines.withContext
import org.voxpress.VoxPress
import org.voxpress.VoxPressOptions

/** Opens a bundle, a zip or its folder, with Tink checking its signature; see [VoxPress.Companion.open]. */
suspend fun VoxPress.Companion.open(
    bundle: File,
    publicKeys: String,
    options: VoxPressOptions = VoxPressOptions(),
): VoxPress = open(bundle, publicKeys, options, TinkVerifier)

/**
 * Opens a bundle that the app ships as `assets/`[asset]: a zip, as `voxpress release` writes it, or its folder.
 *
 * The model is mapped, which takes a file: a bundle's models are unpacked or copied once, into a folder of the app that
 * backups leave out, and again when the app brings another bundle. They are verified at every open.
 */
suspend fun VoxPress.Companion.openAsset(
    context: Context,
    asset: String,
    publicKeys: String,
    options: VoxPressOptions = VoxPressOptions(),
): VoxPress {
    val storage = options.storage ?: File(context.noBackupFilesDir, "voxpress")
    val bundle = withContext(options.dispatcher) {
        storage.mkdirs()
        if (asset.endsWith(".zip")) copiedFile(context, asset) else copiedFolder(context, asset, storage)
    }
    try {
        return open(bundle, publicKeys, options.copy(storage = storage))
    } finally {
        if (bundle.isFile) bundle.delete()
    }
}

private fun copiedFile(context: Context, asset: String): File =
    File.createTempFile("bundle", ".zip", context.cacheDir).also { copyAsset(context, asset, it) }

private fun copiedFolder(context: Context, asset: String, storage: File): File {
    val manifest = context.assets.open("$asset/manifest.json").use { it.readBytes() }
    val digest = MessageDigest.getInstance("SHA-256").digest(manifest).joinToString("") { "%02x".format(it) }
    val copies = File(storage, "assets").apply { mkdirs() }
    val target = File(copies, digest)
    if (target.isDirectory) return target
    // Written beside and renamed, so that a folder of that name is whole.
    val partial = File.createTempFile(digest.take(16), ".partial", copies).apply { delete() }
    try {
        copyTree(context, asset, partial)
        if (!partial.renameTo(target) && !target.isDirectory) error("$target: expected a place to copy a bundle to")
    } finally {
        partial.deleteRecursively()
    }
    copies.listFiles { file -> file != target }?.forEach { it.deleteRecursively() }
    return target
}

private fun copyTree(context: Context, asset: String, target: File) {
    val children = context.assets.list(asset).orEmpty()
    if (children.isEmpty()) return copyAsset(context, asset, target)
    target.mkdirs()
    for (child in children) copyTree(context, "$asset/$child", File(target, child))
}

private fun copyAsset(context: Context, asset: String, target: File) {
    context.assets.open(asset).use { source -> target.outputStream().use { source.copyTo(it) } }
}
