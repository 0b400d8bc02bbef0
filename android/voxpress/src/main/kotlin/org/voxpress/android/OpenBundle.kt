package org.voxpress.android

import android.content.Context
import java.io.File
import java.security.MessageDigest
import kotlinx.coroutines.withContext
import org.voxpress.VoxPress
import org.voxpress.VoxPressOptions

/** Opens a bundle's folder with Tink checking its signature; see [VoxPress.Companion.open]. */
suspend fun VoxPress.Companion.open(
    bundle: File,
    publicKeys: String,
    options: VoxPressOptions = VoxPressOptions(),
): VoxPress = open(bundle, publicKeys, options, TinkVerifier)

/**
 * Opens a bundle that the app ships below `assets/`[asset].
 *
 * The model is mapped, which takes a file: the assets are copied once, into a folder of the app that backups leave out,
 * and again when the app brings another bundle. What was copied is verified at every open, as any bundle is.
 */
suspend fun VoxPress.Companion.openAsset(
    context: Context,
    asset: String,
    publicKeys: String,
    options: VoxPressOptions = VoxPressOptions(),
): VoxPress {
    val folder = withContext(options.dispatcher) { copied(context, asset) }
    return open(folder, publicKeys, options)
}

private fun copied(context: Context, asset: String): File {
    val manifest = context.assets.open("$asset/manifest.json").use { it.readBytes() }
    val digest = MessageDigest.getInstance("SHA-256").digest(manifest).joinToString("") { "%02x".format(it) }
    val bundles = File(context.noBackupFilesDir, "voxpress").apply { mkdirs() }
    val target = File(bundles, digest)
    if (target.isDirectory) return target
    // Written beside and renamed, so that a folder of that name is whole.
    val partial = File.createTempFile(digest.take(16), ".partial", bundles).apply { delete() }
    try {
        copyTree(context, asset, partial)
        if (!partial.renameTo(target) && !target.isDirectory) error("$target: expected a place to copy a bundle to")
    } finally {
        partial.deleteRecursively()
    }
    bundles.listFiles { file -> file != target }?.forEach { it.deleteRecursively() }
    return target
}

private fun copyTree(context: Context, asset: String, target: File) {
    val children = context.assets.list(asset).orEmpty()
    if (children.isEmpty()) {
        context.assets.open(asset).use { source -> target.outputStream().use { source.copyTo(it) } }
        return
    }
    target.mkdirs()
    for (child in children) copyTree(context, "$asset/$child", File(target, child))
}
